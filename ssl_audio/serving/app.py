"""The ASGI application: the routes and their answers."""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ssl_audio.errors import InputError
from ssl_audio.serving.batching import Batcher
from ssl_audio.serving.guard import Guard
from ssl_audio.serving.limits import Limits
from ssl_audio.serving.metrics import Metrics
from ssl_audio.serving.service import Embedded, Service, reason
from ssl_audio.serving.uploads import uploads
from ssl_audio.version import __version__

MAX_NEIGHBOURS = 1000


def make_app(service: Service, limits: Limits | None = None, token: str | None = None) -> Starlette:
    """Make the ASGI application of a service.

    Routes: POST /v1/embeddings, /v1/compare and /v1/similar; GET /health and /metrics.

    Run it with one worker process per device: requests to the same process share batches.

    Args:
        service: the model, and optionally an index.
        limits: limits of a request; None: the defaults.
        token: token that clients must send. None: only requests to a loopback name are answered.
    """
    limits = limits or Limits()
    handlers = _Handlers(service, limits)
    post = {"/v1/embeddings": handlers.embeddings, "/v1/compare": handlers.compare, "/v1/similar": handlers.similar}
    get = {"/health": handlers.health, "/metrics": handlers.text_metrics}
    routes = [Route(path, handlers.timed(answer), methods=["POST"]) for path, answer in post.items()]
    routes += [Route(path, answer, methods=["GET"]) for path, answer in get.items()]
    guard = Middleware(Guard, token, limits.max_requests, handlers.metrics, frozenset([*post, *get]))
    return Starlette(
        routes=routes,
        middleware=[guard],
        exception_handlers={HTTPException: _refused, Exception: _failed},
        lifespan=handlers.lifespan,
    )


class _Handlers:
    def __init__(self, service: Service, limits: Limits) -> None:
        self.service, self.limits, self.metrics = service, limits, Metrics()
        self.thread = ThreadPoolExecutor(1, "compute")
        self.embedder = Batcher(service.embed, self.thread, limits.batch_files, len, self.metrics.batch.observe)

    @asynccontextmanager
    async def lifespan(self, app: Starlette) -> AsyncIterator[None]:
        with tempfile.TemporaryDirectory(prefix="ssl-audio-") as folder:
            self.folder = Path(folder)
            yield
            self.thread.shutdown(wait=True, cancel_futures=True)

    def timed(self, answer: Callable[[Request], Awaitable[dict[str, Any]]]) -> Callable[[Request], Awaitable[Response]]:
        async def timed(request: Request) -> Response:
            seconds = self.limits.timeout_seconds
            try:
                content = await asyncio.wait_for(answer(request), seconds)
            except asyncio.TimeoutError as error:
                raise HTTPException(
                    504, f"the request took more than {seconds:g} s; send fewer files, or try again later"
                ) from error
            about = {"model": self.service.name, "fingerprint": self.service.fingerprint}
            return JSONResponse({**about, **content})

        return timed

    async def embeddings(self, request: Request) -> dict[str, Any]:
        """One embedding per file: `{"dim", "data": [{"index", "seconds", "embedding"}]}`."""
        async with uploads(request, self.folder, self.limits) as paths:
            results = await self._embed(paths)
        data = [
            {"index": index, "seconds": result.seconds, "embedding": result.embedding.tolist()}  # type: ignore[union-attr]
            for index, result in enumerate(results)
        ]
        return {"dim": self.service.model.dim, "data": data}

    async def compare(self, request: Request) -> dict[str, Any]:
        """The similarity of two files: `{"score", "metric"}`."""
        async with uploads(request, self.folder, self.limits) as paths:
            if len(paths) != 2:
                raise HTTPException(400, f"the request has {len(paths)} files; send two, in fields named 'file'")
            one, other = await self._embed(paths)
        return self.service.compare(one.embedding, other.embedding)  # type: ignore[arg-type]

    async def similar(self, request: Request) -> dict[str, Any]:
        """The nearest recordings of the index: `{"results": [{"path", "group", "score"}]}`; ?n=10&per_group=2."""
        if self.service.index is None:
            raise HTTPException(404, "this server has no index; start it with --index")
        n, per_group = _whole_number(request, "n", 10), _whole_number(request, "per_group", None)
        async with uploads(request, self.folder, self.limits) as paths:
            if len(paths) != 1:
                raise HTTPException(400, f"the request has {len(paths)} files; send one")
            loop = asyncio.get_running_loop()
            try:
                found = await loop.run_in_executor(self.thread, self.service.similar, paths[0], n, per_group)
            except InputError as error:
                raise HTTPException(422, f"file 1: {reason(error, paths[0])}") from error
        return {"results": found}

    async def health(self, request: Request) -> Response:
        about = {"model": self.service.name, "fingerprint": self.service.fingerprint, "version": __version__}
        return JSONResponse({"status": "ok", **about})

    async def text_metrics(self, request: Request) -> Response:
        return Response(self.metrics.text(), headers={"content-type": self.metrics.content_type})

    async def _embed(self, paths: list[Path]) -> list[Embedded]:
        results: list[Embedded] = await self.embedder.submit(paths)
        for number, result in enumerate(results, 1):
            if result.embedding is None:
                raise HTTPException(422, f"file {number}: {result.error}")
        self.metrics.audio.inc(sum(result.seconds for result in results))
        return results


def _whole_number(request: Request, name: str, default: int | None) -> Any:
    text = request.query_params.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:9]) <= MAX_NEIGHBOURS):
        raise HTTPException(400, f"{name} must be a whole number from 1 to {MAX_NEIGHBOURS}")
    return int(text)


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, error.status_code, error.headers)


async def _failed(request: Request, error: Exception) -> Response:
    return JSONResponse(
        {"error": "the server failed; its log says why"}, 500
    )  # Starlette also raises the exception, so it is logged
