"""Metrics of the server, in the text format of Prometheus."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, PlatformCollector, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_FILES = (1, 2, 4, 8, 16, 32, 64)


class Metrics:
    """Metrics of an application, with memory and processor time of the process."""

    content_type = CONTENT_TYPE_LATEST

    def __init__(self) -> None:
        own = self._registry = CollectorRegistry()
        ProcessCollector(registry=own)
        PlatformCollector(registry=own)
        self.requests = Counter("ssl_audio_requests", "Requests answered.", ["path", "status"], registry=own)
        self.seconds = Histogram(
            "ssl_audio_request_seconds", "From a request to its answer.", ["path"], registry=own, buckets=_SECONDS
        )
        self.batch = Histogram("ssl_audio_batch_files", "Files in one call of the model.", registry=own, buckets=_FILES)
        self.audio = Counter("ssl_audio_audio_seconds", "Seconds of audio embedded.", registry=own)
        self.under_way = Gauge("ssl_audio_requests_under_way", "Requests that are not answered yet.", registry=own)

    def text(self) -> bytes:
        """All metrics in the text format of Prometheus."""
        return generate_latest(self._registry)
