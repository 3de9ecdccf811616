"""`ssl-audio serve` under load on this machine: requests a second, latency, memory over 10,000 requests, bad uploads.

The plain way is the obvious application on the same ASGI library: it writes the body to a file and calls
`model.embed` in a thread, a request at a time for each. Server and client share the cores of this machine.
"""

import http.client
import io
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import soundfile
import torch

from ssl_audio.encoders import CompactCNN, EfficientNet
from ssl_audio.frontends import LogMelSpectrogram
from ssl_audio.hub import save_model
from ssl_audio.model import EmbeddingModel

Row = tuple[str, float | None, float | None, str]
REQUESTS, CLIENTS = 10_000, 16
HUGE = 64_000_000  # bytes of an upload that is refused

PLAIN = """
import socket, sys, tempfile
import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse
from starlette.routing import Route
from ssl_audio import load_model
from ssl_audio.utils.malloc import keep_freed_memory

keep_freed_memory()
model = load_model(sys.argv[1])

async def embeddings(request):
    with tempfile.NamedTemporaryFile() as file:
        file.write(await request.body())
        file.flush()
        embedding = await run_in_threadpool(model.embed, file.name)
    return JSONResponse({"data": [{"embedding": embedding.tolist()}]})

listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)  # or asyncio leaves Nagle's delay on
listener.bind(("127.0.0.1", 0))
listener.listen(1024)
print(f"at http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
app = Starlette(routes=[Route("/v1/embeddings", embeddings, methods=["POST"])])
uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False)).run(sockets=[listener])
"""


def rows() -> Iterator[Row]:
    torch.manual_seed(0)
    small = EmbeddingModel(LogMelSpectrogram(16000, n_fft=512, hop_length=160, n_mels=64), CompactCNN([16, 32]), 16000)
    large = EmbeddingModel(LogMelSpectrogram(), EfficientNet())
    with tempfile.TemporaryDirectory() as folder:
        save_model(small, Path(folder) / "small")
        save_model(large, Path(folder) / "large")
        bodies = {
            "small": clips(16000, [1.0]),
            "large": clips(44100, [4.0]),
            "odd": clips(44100, np.linspace(3, 5, 16)),
        }
        for name, model, bodies_of, count in (
            ("a compact network, clips of 1 s at 16 kHz", "small", bodies["small"], REQUESTS),
            ("EfficientNet-B0, clips of 4 s at 44.1 kHz", "large", bodies["large"], 200),
            ("EfficientNet-B0, clips of 3 to 5 s, all lengths differ", "large", bodies["odd"], 200),
        ):
            for clients in (1, CLIENTS):
                number = min(200, count) if clients == 1 else count
                yield from load(f"{name}, {clients} at once", Path(folder) / model, bodies_of, number, clients)
        yield from memory(Path(folder) / "small", bodies["small"], REQUESTS)


def load(name: str, model: Path, bodies: list[bytes], count: int, clients: int) -> Iterator[Row]:
    """Seconds a request of the plain application and of ours, and the latencies of both."""
    seconds, notes = [], []
    for command in (plain_command(model), our_command(model)):
        with Server(command) as server:
            hammer(server.port, bodies, 4 * clients, clients)
            started, cpu = time.perf_counter(), server.cpu_seconds()
            taken, statuses = hammer(server.port, bodies, count, clients)
            seconds.append((time.perf_counter() - started) / count)
            cpu = (server.cpu_seconds() - cpu) / count * 1e3
            assert statuses == {200: count}, statuses
            p50, p95, p99 = np.percentile(taken, [50, 95, 99]) * 1e3
            times = f"p50 {p50:.0f}, p95 {p95:.0f}, p99 {p99:.0f} ms, {cpu:.1f} ms of a core"
            notes.append(f"{1 / seconds[-1]:.0f} requests/s, {times}")
    yield f"a request: {name}", *seconds, f"plain: {notes[0]}; ours: {notes[1]}"


def memory(model: Path, bodies: list[bytes], count: int) -> Iterator[Row]:
    """Resident memory of our server while good, malformed and huge uploads come in."""
    torn = [bodies[0][: len(bodies[0]) // 3], b"RIFF nothing", os.urandom(20_000), b""]
    with Server(our_command(model)) as server:
        hammer(server.port, bodies, count // 10, CLIENTS)
        before = server.resident()
        started = time.perf_counter()
        hammer(server.port, bodies, count - count // 10, CLIENTS)
        took = (time.perf_counter() - started) / (count - count // 10)
        after = server.resident()
        yield (
            f"a request, {count} of them",
            None,
            took,
            f"memory {before:.0f} MB after {count // 10}, {after:.0f} MB after {count}",
        )
        _, statuses = hammer(server.port, torn, count // 5, CLIENTS)
        taken, huge = hammer(server.port, [bytes(HUGE)], 50, 4)
        _, then = hammer(server.port, bodies, 100, CLIENTS)
        note = (
            f"answers {statuses} to {count // 5} torn, empty or random uploads, {huge} to 50 of {HUGE // 10**6} MB; "
            f"memory {server.resident():.0f} MB; then {then} to 100 good ones"
        )
        yield "an upload that is refused for its size", None, float(np.median(taken)), note


def clips(rate: int, seconds) -> list[bytes]:
    """Noise as WAV files."""
    rng, files = np.random.default_rng(0), []
    for length in seconds:
        file = io.BytesIO()
        soundfile.write(file, 0.1 * rng.standard_normal(round(length * rate)).astype(np.float32), rate, format="WAV")
        files.append(file.getvalue())
    return files


def plain_command(model: Path) -> list[str]:
    return [sys.executable, "-c", PLAIN, str(model)]


def our_command(model: Path) -> list[str]:
    return [sys.executable, "-m", "ssl_audio.cli", "serve", "--model", str(model), "--port", "0"]


class Server:
    """A server process; ended at the end of the block."""

    def __init__(self, command: list[str]) -> None:
        self.command = command

    def __enter__(self) -> "Server":
        self.process = subprocess.Popen(self.command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        found = re.search(r"http://127\.0\.0\.1:(\d+)", self.process.stdout.readline())
        assert found, "the server did not start"
        self.port = int(found[1])
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.communicate()

    def cpu_seconds(self) -> float:
        """Of the process so far, on all cores."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def resident(self) -> float:
        """Megabytes."""
        return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def hammer(port: int, bodies: list[bytes], count: int, clients: int) -> tuple[list[float], dict[int, int]]:
    """Send `count` requests over `clients` connections that stay open; seconds of each, and how often each status came.

    0 stands for a connection that the server closed before the answer was read.
    """
    taken: list[float] = []
    statuses: dict[int, int] = {}
    lock, left = threading.Lock(), iter(range(count))

    def client() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=300)
        while True:
            with lock:
                number = next(left, None)
            if number is None:
                connection.close()
                return
            started = time.perf_counter()
            status = _ask(connection, bodies[number % len(bodies)])
            with lock:
                taken.append(time.perf_counter() - started)
                statuses[status] = statuses.get(status, 0) + 1

    threads = [threading.Thread(target=client) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return taken, statuses


def _ask(connection: http.client.HTTPConnection, body: bytes) -> int:
    with suppress(OSError):  # the answer may have come before the whole body was sent
        connection.request("POST", "/v1/embeddings", body)
    try:
        answer = connection.getresponse()
        answer.read()
        return answer.status
    except (OSError, http.client.HTTPException):
        return 0
    finally:
        if connection.sock is None or body == b"" or len(body) >= HUGE:
            connection.close()
