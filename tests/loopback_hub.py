"""A small Hugging Face Hub on the loopback address, for the real client: repositories, tokens, broken downloads.

It speaks the routes that the client uses to create, list, commit and download; files are stored without LFS.
"""

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit


@dataclass
class Repository:
    files: dict[str, bytes] = field(default_factory=dict)
    private: bool = False
    gated: bool = False  # nobody has accepted its terms
    commits: int = 0

    @property
    def sha(self) -> str:
        content = b"".join(name.encode() + data for name, data in sorted(self.files.items()))
        return hashlib.sha1(content).hexdigest()


@dataclass
class LoopbackHub:
    """The state of the server; tests set and read it.

    Attributes:
        writers, readers: tokens that may write and read everything, or read only.
        requests: (method, path) of everything that was asked.
        cut: path of a file -> after how many bytes the connection breaks; `cuts_left` times.
    """

    repositories: dict[str, Repository] = field(default_factory=dict)
    writers: set[str] = field(default_factory=lambda: {"hf_writer"})
    readers: set[str] = field(default_factory=lambda: {"hf_reader"})
    requests: list[tuple[str, str]] = field(default_factory=list)
    ranges: list[str] = field(default_factory=list)
    cut: dict[str, int] = field(default_factory=dict)
    cuts_left: int = 0
    endpoint: str = ""


@contextmanager
def loopback_hub() -> Iterator[LoopbackHub]:
    """Serve on a free port of 127.0.0.1 while the context lives."""
    hub = LoopbackHub()

    class Handler(_Handler):
        pass

    Handler.hub = hub
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    hub: LoopbackHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *args) -> None:
        pass

    def do_HEAD(self) -> None:
        self._get()

    def do_GET(self) -> None:
        self._get()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append(("POST", path))
        if path == "/api/validate-yaml":
            return self._json({"errors": [], "warnings": []})
        if self._token() not in self.hub.writers:
            return self._error(403 if self._token() else 401, None, "a token that may write is needed")
        if path == "/api/repos/create":
            return self._create(json.loads(body))
        parts = path.split("/")  # "", api, models, owner, name, what, revision
        repository = self.hub.repositories.get("/".join(parts[3:5]))
        if repository is None:
            return self._error(404, "RepoNotFound", "Repository not found")
        if parts[5] == "preupload":
            files = [
                {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in json.loads(body)["files"]
            ]
            return self._json({"files": files})
        for line in filter(None, body.split(b"\n")):
            entry = json.loads(line)
            if entry["key"] == "file":
                repository.files[entry["value"]["path"]] = base64.b64decode(entry["value"]["content"])
        repository.commits += 1
        url = f"{self.hub.endpoint}/{'/'.join(parts[3:5])}/commit/{repository.sha}"
        return self._json({"commitUrl": url, "commitOid": repository.sha})

    def _create(self, wanted: dict) -> None:
        name = f"{wanted['organization']}/{wanted['name']}" if wanted.get("organization") else f"me/{wanted['name']}"
        if name in self.hub.repositories:
            return self._json(
                {"error": "You already created this model repo", "url": f"{self.hub.endpoint}/{name}"}, 409
            )
        private = bool(wanted.get("private")) or wanted.get("visibility") == "private"
        self.hub.repositories[name] = Repository(private=private)
        return self._json({"url": f"{self.hub.endpoint}/{name}", "name": name})

    def _get(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append((self.command, path))
        parts = path.strip("/").split("/")
        api = parts[:2] == ["api", "models"]
        name = "/".join(parts[2:4] if api else parts[:2])
        repository = self.hub.repositories.get(name)
        allowed = repository and (not repository.private or self._token() in self.hub.readers | self.hub.writers)
        if repository is None or not allowed:
            return self._error(404 if self._token() else 401, "RepoNotFound", "Repository not found")
        if repository.gated and not api:
            return self._error(403, "GatedRepo", "Access to this model is restricted")
        revision = (parts[5] if len(parts) > 5 else "main") if api else parts[3]
        if revision not in ("main", repository.sha):
            return self._error(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        if api and len(parts) > 4 and parts[4] == "tree":
            return self._json(
                [
                    {"type": "file", "path": file, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
                    for file, data in sorted(repository.files.items())
                ]
            )
        if api:
            siblings = [{"rfilename": file} for file in sorted(repository.files)]
            about = {"id": name, "sha": repository.sha, "private": repository.private, "siblings": siblings, "tags": []}
            return self._json({**about, "modelId": name})
        return self._file(repository, "/".join(parts[4:]))

    def _file(self, repository: Repository, file: str) -> None:
        data = repository.files.get(file)
        if data is None:
            return self._error(404, "EntryNotFound", f"{file} does not exist")
        first, total = 0, len(data)
        if "Range" in self.headers:
            self.hub.ranges.append(self.headers["Range"])
            first = int(self.headers["Range"].removeprefix("bytes=").partition("-")[0])
        self.send_response(206 if first else 200)
        self.send_header("ETag", f'"{hashlib.sha1(data).hexdigest()}"')
        self.send_header("X-Repo-Commit", repository.sha)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(total - first))
        if first:
            self.send_header("Content-Range", f"bytes {first}-{total - 1}/{total}")
        self.end_headers()
        if self.command == "HEAD":
            return
        if file in self.hub.cut and self.hub.cuts_left > 0:
            self.hub.cuts_left -= 1
            self.wfile.write(data[first : first + self.hub.cut[file]])
            self.wfile.flush()
            self.close_connection = True
            return
        self.wfile.write(data[first:])

    def _token(self) -> str | None:
        kind, _, token = self.headers.get("Authorization", "").partition(" ")
        return token if kind == "Bearer" else None

    def _json(self, value, status: int = 200) -> None:
        self._send(status, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _error(self, status: int, code: str | None, message: str) -> None:
        headers = {"X-Error-Message": message, "Content-Type": "application/json"} | (
            {"X-Error-Code": code} if code else {}
        )
        self._send(status, json.dumps({"error": message}).encode(), headers)

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
