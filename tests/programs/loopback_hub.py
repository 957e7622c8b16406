"""A small server on this machine that speaks as much of the hub's HTTP API as downloading files takes."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"
TOKEN, OUTSIDER = "hf_member", "hf_outsider"
RESOLVE = re.compile(r"/(?:(datasets)/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)")
API = re.compile(r"/api/(models|datasets)/([^/]+/[^/]+)(?:/(revision|tree)/([^/]+))?")


@dataclass
class Repository:
    """Files that the hub has, and how it behaves.

    Attributes:
        folder: its files, at the one commit.
        gated: only :data:`TOKEN` may read it; :data:`OUTSIDER` is a valid token without access.
        cut: of these files' contents, where to cut the connection, the first time.
        announced: sizes that are announced instead of the true ones.
    """

    folder: Path
    gated: bool = False
    cut: dict[str, int] = field(default_factory=dict)
    announced: dict[str, int] = field(default_factory=dict)


@dataclass
class LoopbackHub:
    """Repositories by kind and name, and what was sent of each file, in bytes."""

    url: str
    repositories: dict[tuple[str, str], Repository] = field(default_factory=dict)
    sent: dict[str, int] = field(default_factory=dict)

    def sent_of(self, suffix: str) -> dict[str, int]:
        """Bytes sent of each file whose name ends so, a file of which none was sent left out."""
        return {name: count for name, count in self.sent.items() if name.endswith(suffix) and count}


@contextmanager
def serve() -> Iterator[LoopbackHub]:
    """A hub without repositories that answers until the block ends."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    server.hub = LoopbackHub(f"http://127.0.0.1:{server.server_port}")
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield server.hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments: object) -> None:
        """Nothing: pytest shows what the client says."""

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        if match := RESOLVE.fullmatch(path):
            kind, name, revision, filename = match.groups()
            if repository := self._open(kind or "models", name, revision):
                self._file(repository, filename)
        elif match := API.fullmatch(path):
            kind, name, what, revision = match.groups()
            if repository := self._open(kind, name, revision or "main"):
                self._json(_tree(repository) if what == "tree" else {"id": name, "sha": COMMIT, "siblings": []})
        else:
            self._refuse(404, "NotFound", f"the loopback hub has no {path}")

    def _open(self, kind: str, name: str, revision: str) -> Repository | None:
        """The repository, if it may be read; otherwise the hub's refusal is sent."""
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        repository = self.server.hub.repositories.get((kind, name))
        if token not in ("", TOKEN, OUTSIDER):
            self._refuse(401, None, "Invalid credentials in Authorization header")
        elif repository is None:
            self._refuse(404 if token else 401, "RepoNotFound", "Repository not found")
        elif repository.gated and token != TOKEN:
            self._refuse(403 if token else 401, "GatedRepo", f"Access to {kind} {name} is restricted")
        elif revision not in ("main", COMMIT):
            self._refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        else:
            return repository
        return None

    def _file(self, repository: Repository, filename: str) -> None:
        path = repository.folder / filename
        if not path.is_file():
            self._refuse(404, "EntryNotFound", "Entry not found")
            return
        content = path.read_bytes()
        start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").rstrip("-"))
        self.send_response(206 if start else 200)
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("X-Linked-Size", str(repository.announced.get(filename, len(content))))
        self.send_header("Content-Length", str(len(content) - start))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        if self.command == "GET":
            end = repository.cut.pop(filename, len(content))
            self.wfile.write(content[start:end])
            self.server.hub.sent[filename] = self.server.hub.sent.get(filename, 0) + end - start
            self.close_connection = end < len(content)

    def _json(self, value: object) -> None:
        content = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _refuse(self, status: int, code: str | None, message: str) -> None:
        self.send_response(status)
        if code:
            self.send_header("X-Error-Code", code)
        self.send_header("X-Error-Message", message)
        if code == "EntryNotFound":
            self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Length", "0")
        self.end_headers()


def _tree(repository: Repository) -> list[dict[str, object]]:
    files = [path for path in sorted(repository.folder.rglob("*")) if path.is_file()]
    return [
        {
            "type": "file",
            "path": path.relative_to(repository.folder).as_posix(),
            "size": path.stat().st_size,
            "oid": hashlib.sha1(path.read_bytes()).hexdigest(),
        }
        for path in files
    ]
