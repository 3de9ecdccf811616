"""Moved to `ssl_audio.hub`."""

from ssl_audio.utils.deprecation import moved

__getattr__ = moved(__name__, "ssl_audio.hub", since="0.2")
