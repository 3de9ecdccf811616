"""Who may ask: the middleware before every route."""

import hmac
import ipaddress
import time

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ssl_audio.serving.metrics import Metrics

OPEN = ("/health",)  # for load balancers, without a token
UNCOUNTED = ("/health", "/metrics")


class Guard:
    """Refuses requests without the token, for a foreign host, or beyond the number that may be under way; counts all.

    Without a token a request must name a loopback host, so that a page in a browser cannot reach the server under a
    name that its owner points to 127.0.0.1 (DNS rebinding).

    Args:
        token: clients send `Authorization: Bearer <token>`; None asks for none.
        max_requests: under way at once, /health and /metrics not counted.
        paths: of the routes; others are counted as one.
    """

    def __init__(
        self, app: ASGIApp, token: str | None, max_requests: int, metrics: Metrics, paths: frozenset[str]
    ) -> None:
        self.app, self.token, self.max_requests, self.metrics, self.paths = app, token, max_requests, metrics, paths
        self._under_way = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started, path = time.perf_counter(), scope["path"]
        label = path if path in self.paths else "other"
        counted = path not in UNCOUNTED
        self._under_way += counted
        self.metrics.under_way.set(self._under_way)
        status = "500"  # unless an answer begins

        async def counting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = str(message["status"])
            await send(message)

        try:
            await (self._refusal(scope) or self.app)(scope, receive, counting)
        finally:
            self._under_way -= counted
            self.metrics.under_way.set(self._under_way)
            self.metrics.requests.labels(label, status).inc()
            self.metrics.seconds.labels(label).observe(time.perf_counter() - started)

    def _refusal(self, scope: Scope) -> ASGIApp | None:
        headers = {name: value for name, value in scope["headers"] if name in (b"authorization", b"host")}
        if self.token is None and not is_loopback(_hostname(headers.get(b"host", b"").decode("latin-1"))):
            return _error(403, "without a token this server answers to 127.0.0.1 and localhost alone")
        if self.token is not None and scope["path"] not in OPEN:
            expected = b"Bearer " + self.token.encode()
            if not hmac.compare_digest(headers.get(b"authorization", b""), expected):
                return _error(401, "send the header Authorization: Bearer <token>", {"www-authenticate": "Bearer"})
        if self._under_way > self.max_requests and scope["path"] not in UNCOUNTED:
            return _error(503, f"{self.max_requests} requests are under way; try again", {"retry-after": "1"})
        return None


def is_loopback(host: str) -> bool:
    """Whether only this machine can use the address or name."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _hostname(header: str) -> str:
    """Of a Host header: without port and brackets."""
    return header[1:].partition("]")[0] if header.startswith("[") else header.partition(":")[0]


def _error(status: int, text: str, headers: dict[str, str] | None = None) -> JSONResponse:
    return JSONResponse({"error": text}, status, headers)
