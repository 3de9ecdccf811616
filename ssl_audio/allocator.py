"""Moved to `ssl_audio.utils.malloc`."""

from ssl_audio.utils.deprecation import moved

__getattr__ = moved(__name__, "ssl_audio.utils.malloc", since="0.2")
