"""Serve a model over HTTP: embeddings, comparison, similar recordings. See docs/serving.md and `ssl-audio serve`.

from ssl_audio import load_model
from ssl_audio.serving import Service, make_app

app = make_app(Service(load_model("byol"), "byol"))     # for any ASGI server
"""

from ssl_audio.serving.app import make_app
from ssl_audio.serving.limits import Limits
from ssl_audio.serving.service import Service

__all__ = ["Limits", "Service", "make_app"]
