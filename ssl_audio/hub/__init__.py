"""Models by name: load, save, share."""

from ssl_audio.hub.load import PUBLISHED_SOURCE, load_model, push_to_hub, save_model

__all__ = ["PUBLISHED_SOURCE", "load_model", "push_to_hub", "save_model"]
