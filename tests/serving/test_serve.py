"""What `ssl-audio serve` answers and refuses: a real process, asked by the standard library's client."""

import io
import os
import socket

import numpy as np
import pytest
import soundfile
from helpers import tone
from servers import RATE, Server, encoded, form

from ssl_audio import audio
from ssl_audio.provenance import fingerprint

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")


@pytest.fixture(scope="module")
def server(place):
    server = Server(
        place[0], "--index", str(place[0] / "library.index"), "--max_seconds", "20", "--max_bytes", "2000000"
    )
    yield server
    status, _, err = server.stop()
    assert status == 0 and "Traceback" not in err, err


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
        (encoded(tone(seconds=21)), 413, "has 21.0 s of audio; this server takes up to 20 s"),
        (encoded(np.zeros(2000, np.float32), 400_000), 413, "sample rate of 400000 Hz"),
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
