"""Processes of `ssl-audio serve`: many requests at once, their limits, stopping, tokens and starting."""

import http.client
import io
import json
import re
import signal
import socket
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from helpers import REPOSITORY, tone
from servers import RATE, Server, encoded

from ssl_audio.cli import main
from ssl_audio.encoders import CompactCNN
from ssl_audio.frontends import LogMelSpectrogram
from ssl_audio.hub.saved import save_model
from ssl_audio.model import EmbeddingModel

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")

TOKEN = "a-token-of-enough-letters"


# --- many at once


def test_requests_at_once_share_calls_of_the_model_and_each_gets_its_own(place):
    folder, model = place
    server = Server(folder)
    clips = [tone(seconds=0.6, frequency=100 + 17 * i, seed=i) for i in range(40)]
    bodies = [encoded(clip) for clip in clips]
    answers: list = [None] * len(clips)

    def ask(i: int) -> None:
        answers[i] = server.ask("POST", "/v1/embeddings", bodies[i])

    threads = [threading.Thread(target=ask, args=[i]) for i in range(len(clips))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for body, (status, answer) in zip(bodies, answers, strict=True):
        assert status == 200
        samples = soundfile.read(io.BytesIO(body), dtype="float32")[0]
        np.testing.assert_allclose(answer["data"][0]["embedding"], model.embed(samples), atol=1e-5)
    text = server.ask("GET", "/metrics")[1]
    calls = float(re.search(r"^ssl_audio_batch_files_count (\S+)", text, re.MULTILINE)[1])
    files = float(re.search(r"^ssl_audio_batch_files_sum (\S+)", text, re.MULTILINE)[1])
    assert files == len(clips) and calls < len(clips)
    assert server.stop()[0] == 0


def slow_request(port: int, body: bytes):
    """A connection that has sent all of a request but its last byte."""
    raw = socket.create_connection(("127.0.0.1", port), timeout=60)
    head = f"POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
    raw.sendall(head.encode() + body[:-1])
    return raw


def answer_of(raw: socket.socket) -> tuple[int, dict]:
    answer = http.client.HTTPResponse(raw)
    answer.begin()
    return answer.status, json.loads(answer.read())


@pytest.mark.slow
def test_too_many_requests_and_requests_that_never_end(place):
    server = Server(place[0], "--max_requests", "2", "--timeout_seconds", "2")
    body = encoded(tone())
    waiting = [slow_request(server.port, body) for _ in range(2)]
    until(lambda: "ssl_audio_requests_under_way 2.0" in server.ask("GET", "/metrics")[1])
    status, answer = server.ask("POST", "/v1/embeddings", body)
    assert status == 503 and "2 requests are under way" in answer["error"]
    assert server.ask("GET", "/health")[0] == 200
    for raw in waiting:
        status, answer = answer_of(raw)
        assert status == 504 and "more than 2 s" in answer["error"]
        raw.close()
    assert server.ask("POST", "/v1/embeddings", body)[0] == 200
    for _ in range(5):  # clients that go away in the middle
        slow_request(server.port, body).close()
    until(lambda: "ssl_audio_requests_under_way 0.0" in server.ask("GET", "/metrics")[1])
    assert server.ask("POST", "/v1/embeddings", body)[0] == 200
    assert server.stop()[0] == 0


def until(condition, seconds=30.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_lets_a_request_that_is_under_way_finish(place, tmp_path, number, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    server = Server(place[0])
    body = encoded(tone())
    raw = slow_request(server.port, body)
    until(lambda: "ssl_audio_requests_under_way 1.0" in server.ask("GET", "/metrics")[1])
    assert list(tmp_path.iterdir())
    server.process.send_signal(number)
    until(lambda: refused(server.port))
    raw.sendall(body[-1:])
    status, answer = answer_of(raw)
    assert status == 200 and len(answer["data"][0]["embedding"]) == 16
    raw.close()
    out, err = server.process.communicate(timeout=60)
    assert (server.process.returncode, out, err) == (0, "", "")
    assert not list(tmp_path.iterdir())  # no upload is left behind


def refused(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except OSError:
        return True
    return False


# --- who may ask, and starting


@pytest.mark.slow
def test_with_a_token_nothing_is_answered_without_it(place):
    server = Server(place[0], "--host", "0.0.0.0", token=TOKEN)
    body = encoded(tone())
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": TOKEN}, {"Authorization": "Bearer "}):
        for method, path in (("POST", "/v1/embeddings"), ("GET", "/metrics"), ("GET", "/nothing")):
            status, answer = server.ask(method, path, body if method == "POST" else None, headers)
            assert status == 401 and TOKEN not in str(answer)
    assert server.ask("GET", "/health")[0] == 200
    right = {"Authorization": f"Bearer {TOKEN}", "Host": "models.example"}
    assert server.ask("POST", "/v1/embeddings", body, right)[0] == 200
    assert server.ask("POST", "/v1/similar", body, right)[0] == 404  # no index
    status, out, err = server.stop()
    assert status == 0 and TOKEN not in out + err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--host", "0.0.0.0"], "give --token_file, or set SSL_AUDIO_TOKEN"),
        (["--host", "::"], "other machines can reach"),
        (["--token_file", "nowhere"], "nowhere: the token cannot be read"),
        (["--token_file", "short"], "16 or more"),
        (["--host", "no.such.host.invalid", "--token_file", "good"], "cannot listen on"),
        (["--port", "99999"], "cannot listen on"),
        (["--max_bytes", "0"], "--max_bytes must be above 0"),
        (["--timeout_seconds", "nan"], "--timeout_seconds must be above 0"),
        (["--index", "nowhere.index"], "nowhere.index"),
        (["--window", "0.001"], "too short"),
    ],
)
def test_what_is_wrong_is_said_before_it_listens(place, tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.delenv("SSL_AUDIO_TOKEN", raising=False)
    monkeypatch.chdir(tmp_path)
    Path("short").write_text("secret")
    Path("good").write_text(TOKEN)
    assert main(["serve", "--model", str(place[0] / "model"), "--port", "0", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error and error.startswith("error: ") and error.count("\n") == 1 and "secret" not in error


def test_a_port_that_is_taken_and_an_index_of_another_model(place, tmp_path, capsys):
    folder, _ = place
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert main(["serve", "--model", str(folder / "model"), "--port", port]) == 2
    assert "give another --port" in capsys.readouterr().err
    torch.manual_seed(1)
    frontend = LogMelSpectrogram(sample_rate=RATE, n_fft=512, hop_length=160, n_mels=32)
    save_model(EmbeddingModel(frontend, CompactCNN([8], embedding_dim=16), RATE), tmp_path / "other")
    arguments = ["--model", str(tmp_path / "other"), "--index", str(folder / "library.index"), "--port", "0"]
    assert main(["serve", *arguments]) == 2
    assert "made this index; use that one" in capsys.readouterr().err


def test_the_dockerfile_copies_what_is_there():
    text = (REPOSITORY / "examples" / "serve" / "Dockerfile").read_text()
    sources = [name for line in re.findall(r"^COPY (.+) \S+$", text, re.MULTILINE) for name in line.split()]
    assert len(sources) > 4 and all((REPOSITORY / name).exists() for name in sources)
