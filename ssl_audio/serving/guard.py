"""Middleware that refuses requests which are not allowed, and counts all requests."""

import hmac
import ipaddress
import time

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ssl_audio.serving.metrics import Metrics

OPEN = ("/health",)  # needs no token, so that load balancers can ask
UNCOUNTED = ("/health", "/metrics")  # do not count towards max_requests


class Guard:
    """Refuses requests without the token, requests for a foreign host, and requests above the limit.

    If there is no token, the Host header of a request must be a loopback name. Otherwise, a web page could reach the
    server through a domain name that resolves to 127.0.0.1 (DNS rebinding).

    Args:
        app: the application.
        token: token that clients must send as `Authorization: Bearer <token>`; None for no token.
        max_requests: largest number of requests under way, without those to /health and /metrics.
        metrics: counters of requests.
        paths: paths of the routes. Requests to other paths are counted together.
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
        status = "500"  # if the application fails before it answers

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
            return _error(403, "this server has no token, so it answers only to the hosts 127.0.0.1 and localhost")
        if self.token is not None and scope["path"] not in OPEN:
            expected = b"Bearer " + self.token.encode()
            if not hmac.compare_digest(headers.get(b"authorization", b""), expected):
                return _error(401, "send the header Authorization: Bearer <token>", {"www-authenticate": "Bearer"})
        if self._under_way > self.max_requests and scope["path"] not in UNCOUNTED:
            return _error(503, f"{self.max_requests} requests are under way; try again later", {"retry-after": "1"})
        return None


def is_loopback(host: str) -> bool:
    """Whether an address or name is reachable from this machine only."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _hostname(header: str) -> str:
    """The host in a Host header, without port and brackets."""
    return header[1:].partition("]")[0] if header.startswith("[") else header.partition(":")[0]


def _error(status: int, text: str, headers: dict[str, str] | None = None) -> JSONResponse:
    return JSONResponse({"error": text}, status, headers)
