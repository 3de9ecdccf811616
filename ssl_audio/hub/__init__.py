"""Loading models by name, saving them, and uploading them to the Hugging Face Hub."""

from ssl_audio.hub.checkpoint import load_checkpoint
from ssl_audio.hub.load import PUBLISHED_SOURCE, load_model
from ssl_audio.hub.push import push_to_hub
from ssl_audio.hub.saved import save_model

__all__ = ["PUBLISHED_SOURCE", "load_checkpoint", "load_model", "push_to_hub", "save_model"]
