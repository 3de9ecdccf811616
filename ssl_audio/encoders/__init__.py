"""Encoders: features -> one vector a clip, one architecture a file."""

from ssl_audio.encoders.base import Encoder
from ssl_audio.encoders.efficientnet import EfficientNet

__all__ = ["EfficientNet", "Encoder"]
