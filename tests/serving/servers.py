"""A process of `ssl-audio serve`, and bodies of requests to it."""

import http.client
import io
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import soundfile

RATE = 16000


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
