"""Moved to `ssl_audio.hub.saved`."""

from ssl_audio.utils.deprecation import moved

__getattr__ = moved(__name__, "ssl_audio.hub.saved", since="0.2")
