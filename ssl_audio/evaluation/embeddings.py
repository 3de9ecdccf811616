"""Moved to `ssl_audio.embedding.recordings`."""

from ssl_audio.utils.deprecation import moved

__getattr__ = moved(__name__, "ssl_audio.embedding.recordings", since="0.2", renamed={"TestedModel": "EvalProtocol"})
