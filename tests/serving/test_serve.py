"""`ssl-audio serve`: a real process on the loopback address, asked by the standard library's client."""

import http.client
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from helpers import REPOSITORY, tone

from ssl_audio import audio
from ssl_audio.cli import main
from ssl_audio.encoders import CompactCNN
from ssl_audio.frontends import LogMelSpectrogram
from ssl_audio.hub.saved import save_model
from ssl_audio.model import EmbeddingModel
from ssl_audio.provenance import fingerprint

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")

RATE = 16000
TOKEN = "a-token-of-enough-letters"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a saved model, a library of 12 tones, its index, and the model itself."""
    folder = tmp_path_factory.mktemp("served")
    torch.manual_seed(0)
    frontend = LogMelSpectrogram(sample_rate=RATE, n_fft=512, hop_length=160, n_mels=32, normalize="band")
    model = EmbeddingModel(frontend, CompactCNN(channels=[8, 8], embedding_dim=16), sample_rate=RATE).eval()
    save_model(model, folder / "model")
    for i in range(12):
        audio.write(folder / "library" / "abc"[i % 3] / f"{i}.wav", tone(frequency=110.0 + 40 * i, seed=i), RATE)
    arguments = ["--model", str(folder / "model"), "--output", str(folder / "library.index")]
    assert main(["index", str(folder / "library"), *arguments]) == 0
    return folder, model


class Server:
    """A process of `ssl-audio serve` on a free port."""

    def __init__(self, folder: Path, *arguments: str, token: str | None = None) -> None:
        command = [sys.executable, "-m", "ssl_audio.cli", "serve", "--model", str(folder / "model"), "--port", "0"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"} | ({"SSL_AUDIO_TOKEN": token} if token else {})
        self.process = subprocess.Popen(
            [*command, *arguments], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        line = self.process.stdout.readline()
        found = re.search(r"at http://(\S+):(\d+)$", line.strip())
        if not found:
            raise AssertionError(line + self.process.stderr.read())
        self.port = int(found[2])

    def ask(self, method, path, body=None, headers=None):
        """(status, parsed answer) of one request over a connection of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.request(method, path, body, headers or {})
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        is_json = answer.headers.get_content_type() == "application/json"
        return answer.status, json.loads(content) if is_json else content.decode()

    def stop(self, number=signal.SIGTERM):
        self.process.send_signal(number)
        out, err = self.process.communicate(timeout=60)
        return self.process.returncode, out, err


@pytest.fixture(scope="module")
def server(place):
    server = Server(
        place[0], "--index", str(place[0] / "library.index"), "--max_seconds", "20", "--max_bytes", "2000000"
    )
    yield server
    status, _, err = server.stop()
    assert status == 0 and "Traceback" not in err, err


def encoded(samples, rate=RATE, form="WAV") -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=form)
    return file.getvalue()


def form(*files, name="file", filename="x.wav"):
    """(body, headers) of multipart/form-data."""
    parts = [
        f'--limit\r\nContent-Disposition: form-data; name="{name}"; filename="{filename}"\r\n'
        f"Content-Type: audio/wav\r\n\r\n".encode()
        + file
        + b"\r\n"
        for file in files
    ]
    return b"".join(parts) + b"--limit--\r\n", {"Content-Type": "multipart/form-data; boundary=limit"}


# --- what it answers


def test_an_embedding_is_the_models(server, place):
    folder, model = place
    path = folder / "library" / "a" / "0.wav"
    status, answer = server.ask("POST", "/v1/embeddings", path.read_bytes())
    assert status == 200
    assert (answer["model"], answer["fingerprint"], answer["dim"]) == ("model", fingerprint(model), 16)
    (row,) = answer["data"]
    assert row["index"] == 0 and row["seconds"] == pytest.approx(1.0)
    np.testing.assert_allclose(row["embedding"], model.embed(path), atol=1e-5)


def test_several_files_of_any_format_keep_their_order(server, place, tmp_path):
    model = place[1]
    clips = [tone(seconds=0.5 + 0.3 * i, frequency=150 + 50 * i, seed=i) for i in range(3)]
    files = [encoded(clips[0]), encoded(clips[1], form="FLAC"), encoded(np.stack([clips[2]] * 2, 1), form="OGG")]
    status, answer = server.ask("POST", "/v1/embeddings", *form(*files))
    assert status == 200 and [row["index"] for row in answer["data"]] == [0, 1, 2]
    for i, (row, file) in enumerate(zip(answer["data"], files, strict=True)):
        (tmp_path / str(i)).write_bytes(file)
        np.testing.assert_allclose(row["embedding"], model.embed(tmp_path / str(i)), atol=1e-5)


def test_comparison_is_the_cosine(server, place):
    model = place[1]
    one, other = tone(frequency=200, seed=1), tone(frequency=330, seed=2)
    status, answer = server.ask("POST", "/v1/compare", *form(encoded(one), encoded(other)))
    a, b = (model.embed(soundfile.read(io.BytesIO(encoded(clip)), dtype="float32")[0]) for clip in (one, other))
    expected = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
    assert status == 200 and answer["metric"] == "cosine" and answer["score"] == pytest.approx(expected, abs=1e-5)
    status, answer = server.ask("POST", "/v1/compare", *form(encoded(one), encoded(one)))
    assert answer["score"] == pytest.approx(1.0, abs=1e-6)
    status, answer = server.ask("POST", "/v1/compare", encoded(one))
    assert status == 400 and "send two" in answer["error"]


def test_similar_recordings_of_the_index(server, place):
    from ssl_audio.retrieval import Index

    folder, model = place
    path = folder / "library" / "b" / "1.wav"
    status, answer = server.ask("POST", "/v1/similar?n=4", path.read_bytes())
    assert status == 200 and len(answer["results"]) == 4
    assert answer["results"][0]["path"] == "b/1.wav" and answer["results"][0]["score"] == pytest.approx(1, abs=1e-5)
    samples = audio.read(path, RATE)
    expected = Index.load(folder / "library.index", model).recommend(samples, 4)
    assert [row["group"] for row in answer["results"]] == [hit.group for hit in expected]
    np.testing.assert_allclose([row["score"] for row in answer["results"]], [hit.score for hit in expected], atol=1e-5)
    _, one_a_group = server.ask("POST", "/v1/similar?n=3&per_group=1", path.read_bytes())
    assert len({row["group"] for row in one_a_group["results"]}) == 3
    for query in ("n=0", "n=-1", "n=x", "n=1001", "per_group=0", "n=9999999999999999999999"):
        status, answer = server.ask("POST", f"/v1/similar?{query}", path.read_bytes())
        assert status == 400 and "whole number from 1 to 1000" in answer["error"], query


def test_health_and_metrics(server):
    status, answer = server.ask("GET", "/health")
    assert status == 200 and answer["status"] == "ok" and answer["model"] == "model"
    server.ask("POST", "/v1/embeddings", encoded(tone()))
    server.ask("GET", "/no/such/path")
    status, text = server.ask("GET", "/metrics")
    assert status == 200
    values = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert float(values['ssl_audio_requests_total{path="/v1/embeddings",status="200"}']) >= 1
    assert float(values['ssl_audio_requests_total{path="other",status="404"}']) >= 1
    assert float(values["process_resident_memory_bytes"]) > 1e6 and float(values["ssl_audio_audio_seconds_total"]) >= 1
    assert float(values['ssl_audio_request_seconds_count{path="/v1/embeddings"}']) >= 1


# --- what it refuses


def test_what_is_no_audio_is_one_line_without_a_path(server, place):
    shortest = encoded(tone(seconds=0.005))
    nan = encoded(np.full(RATE, np.nan, np.float32), form="WAV")
    float_nan = io.BytesIO()
    soundfile.write(float_nan, np.full(RATE, np.nan, np.float32), RATE, format="WAV", subtype="FLOAT")
    cases = [
        (b"", 400, "body is empty"),
        (b"RIFF nothing of the kind", 422, "cannot be opened as audio"),
        (os.urandom(5000), 422, "cannot be opened as audio"),
        (shortest, 422, "too short"),
        (float_nan.getvalue(), 422, "NaN"),
        (encoded(tone(seconds=21)), 413, "holds 21.0 s of audio; this server takes 20 s"),
        (encoded(np.zeros(2000, np.float32), 400_000), 413, "rate of 400000 Hz"),
        (encoded(tone(seconds=5))[:20_000], 200, None),  # torn, but what is there is audio: as `ssl-audio embed`
        (nan, 200, None),  # integers have no NaN
    ]
    for body, expected, message in cases:
        status, answer = server.ask("POST", "/v1/embeddings", body)
        assert status == expected, (body[:20], answer)
        if message is not None:
            assert message in answer["error"] and "/tmp" not in answer["error"] and "\n" not in answer["error"]
    good = encoded(tone())
    status, answer = server.ask("POST", "/v1/embeddings", *form(good, b"nothing", good))
    assert status == 422 and answer["error"].startswith("file 2")


def test_forms_that_are_wrong(server):
    good = encoded(tone(seconds=0.1))
    for (body, headers), expected, message in [
        (form(good, name="audio"), 400, "no file in a field named 'file'"),
        (form(*[good] * 17), 413, "more than 16 files"),
        ((b"no boundary at all", {"Content-Type": "multipart/form-data"}), 400, "boundary"),
        ((form(good)[0][:-40], form(good)[1]), 400, None),
        ((b"--limit\r\nrubbish", {"Content-Type": "multipart/form-data; boundary=limit"}), 400, None),
    ]:
        status, answer = server.ask("POST", "/v1/embeddings", body, headers)
        assert status == expected, answer
        assert message is None or message in answer["error"]
    assert server.ask("GET", "/health")[0] == 200


def test_names_of_files_are_never_used(server, place, tmp_path):
    good = encoded(tone())
    for name in ("../../../../etc/passwd", "/etc/passwd", "..\\..\\x", "%2e%2e%2f", "a\x00b", "x" * 50_000):
        status, answer = server.ask("POST", "/v1/embeddings", *form(good, filename=name))
        odd = "\0" in name or len(name) > 1000
        assert status == 200 or (odd and status == 400), answer
    for path in ("/../../etc/passwd", "/v1/../../etc/passwd", "/v1/similar/..%2f..%2fetc/passwd", "//etc/passwd"):
        for method in ("GET", "POST"):
            status, answer = server.ask(method, path, good if method == "POST" else None)
            assert status in (404, 405) and "root" not in str(answer)


def test_a_body_that_is_too_large_is_refused_while_it_arrives(server):
    huge = 3_000_000
    status, answer = server.ask("POST", "/v1/embeddings", b"", {"Content-Length": str(10**12)})
    assert status == 413 and "2000000 bytes" in answer["error"]
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as raw:  # without a length, in chunks
        raw.sendall(b"POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
        sent, answer = 0, b""
        raw.settimeout(0.01)
        while sent < 100 * huge and not answer:
            try:
                raw.sendall(b"10000\r\n" + bytes(0x10000) + b"\r\n")
                sent += 0x10000
                answer = raw.recv(100)
            except TimeoutError:
                continue
            except OSError:
                break
    assert sent < 20 * huge and (not answer or b" 413 " in answer)
    assert server.ask("GET", "/health")[0] == 200


def test_wrong_paths_methods_and_hosts(server):
    assert server.ask("GET", "/v1/embeddings")[0] == 405
    assert server.ask("POST", "/v1/nothing", b"x")[0] == 404
    good = encoded(tone())
    for host, expected in [
        ("evil.example", 403),
        ("127.0.0.1.evil.example", 403),
        ("", 403),
        ("localhost:1", 200),
        ("[::1]", 200),
        ("127.9.9.9:80", 200),
    ]:
        status, answer = server.ask("POST", "/v1/embeddings", good, {"Host": host})
        assert status == expected, (host, answer)


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
        (["--host", "::"], "is open to other machines"),
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
    assert "made by another model" in capsys.readouterr().err


def test_the_dockerfile_copies_what_is_there():
    text = (REPOSITORY / "examples" / "serve" / "Dockerfile").read_text()
    sources = [name for line in re.findall(r"^COPY (.+) \S+$", text, re.MULTILINE) for name in line.split()]
    assert len(sources) > 4 and all((REPOSITORY / name).exists() for name in sources)
