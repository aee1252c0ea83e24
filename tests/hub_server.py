"""A Hugging Face hub on loopback, as far as huggingface_hub asks one: listing, HEAD and GET with ranges, redirects.

Every request is kept in `requests`. Large files (safetensors) are answered with a redirect to "another host", as the hub does:
the same port under the name `localhost`, so that a client which sends its token there is found out.
"""

import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

API = re.compile(r"/api/(?:models|datasets)/([^/]+/[^/]+)(?:/revision/(.+))?")
RESOLVE = re.compile(r"/(?:datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)")


class Request(NamedTuple):
    method: str
    path: str
    headers: dict[str, str]


@dataclass
class Repo:
    """One model or dataset at one commit; `main` stands for it."""

    files: dict[str, bytes]
    commit: str = "a" * 40
    token: str | None = None
    """If set, files are given only to who sends it (a gated model: its listing is public)."""
    refusal: int = 403
    """Status for who does not."""
    corrupt: set[str] = field(default_factory=set)
    """Files that are sent with one byte changed."""
    branches: dict[str, "Repo"] = field(default_factory=dict)
    """Other branches, by name; each has a commit of its own."""
    stall: dict[str, int] = field(default_factory=dict)
    """File -> bytes after which the first answer stops until the server's `go_on` is set."""


def is_large(name: str) -> bool:
    return name.endswith(".safetensors")


class HubServer:
    """`with HubServer({"org/name": Repo(...)}) as hub:` and HF_ENDPOINT=hub.url."""

    def __init__(self, repos: dict[str, Repo]):
        self.repos = repos
        self.requests: list[Request] = []
        self.go_on = threading.Event()
        self._http = _Listener(("127.0.0.1", 0), _Handler)
        self._http.hub = self
        self.port = self._http.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> "HubServer":
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.go_on.set()
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()

    def asked_for(self, text: str, method: str = "GET") -> list[Request]:
        """The requests whose path holds `text`, oldest first."""
        return [request for request in self.requests if text in request.path and request.method == method]


class _Listener(ThreadingHTTPServer):
    daemon_threads = True
    hub: HubServer


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Listener

    def do_GET(self) -> None:
        self._serve()

    def do_HEAD(self) -> None:
        self._serve()

    def log_message(self, format: str, *args: object) -> None:
        pass

    def _serve(self) -> None:
        self.server.hub.requests.append(Request(self.command, self.path, {k.lower(): v for k, v in self.headers.items()}))
        path = unquote(urlsplit(self.path).path)
        if path.startswith("/storage/"):
            name, _, file = path.removeprefix("/storage/").partition("//")
            return self._content(self.server.hub.repos[name], file)
        if match := API.fullmatch(path):
            return self._listing(match[1], match[2] or "main")
        if match := RESOLVE.fullmatch(path):
            return self._resolve(*match.groups())
        return self._refuse(404, "NotAPage")

    def _refuse(self, status: int, code: str) -> None:
        self._send(status, json.dumps({"error": code}).encode(), {"X-Error-Code": code})

    def _send(self, status: int, body: bytes, headers: dict[str, str], stop_after: int | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        try:
            self.wfile.write(body[:stop_after])
            if stop_after is not None:
                self.server.hub.go_on.wait()
                self.wfile.write(body[stop_after:])
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def _find(self, name: str, revision: str) -> Repo | None:
        repo = self.server.hub.repos.get(name)
        if repo is None:
            self._refuse(404, "RepoNotFound")
        else:
            there = {**repo.branches, "main": repo} | {each.commit: each for each in [repo, *repo.branches.values()]}
            if revision in there:
                return there[revision]
            self._refuse(404, "RevisionNotFound")
        return None

    def _listing(self, name: str, revision: str) -> None:
        repo = self._find(name, revision)
        if repo is None:
            return
        siblings = []
        for file, content in repo.files.items():
            blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
            entry = {"rfilename": file, "size": len(content), "blobId": blob}
            if is_large(file):
                entry["lfs"] = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest(), "pointerSize": 135}
            siblings.append(entry)
        body = {"id": name, "sha": repo.commit, "siblings": siblings, "private": False, "tags": []}
        self._send(200, json.dumps(body).encode(), {"Content-Type": "application/json"})

    def _resolve(self, name: str, revision: str, file: str) -> None:
        repo = self._find(name, revision)
        if repo is None:
            return
        if repo.token and self.headers.get("Authorization") != f"Bearer {repo.token}":
            return self._refuse(repo.refusal, "GatedRepo")
        if file not in repo.files:
            return self._refuse(404, "EntryNotFound")
        if not is_large(file):
            return self._content(repo, file)
        content = repo.files[file]
        self._send(302, b"", {
            "Location": f"http://localhost:{self.server.hub.port}/storage/{name}//{file}",
            "X-Repo-Commit": repo.commit,
            "X-Linked-Etag": f'"{hashlib.sha256(content).hexdigest()}"',
            "X-Linked-Size": str(len(content)),
        })

    def _content(self, repo: Repo, file: str) -> None:
        content = repo.files[file]
        if file in repo.corrupt:
            content = content[:-1] + bytes([content[-1] ^ 1])
        headers = {"ETag": f'"{hashlib.sha1(content).hexdigest()}"', "X-Repo-Commit": repo.commit, "Accept-Ranges": "bytes"}
        stop_after = repo.stall.pop(file, None) if self.command == "GET" else None
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
        if wanted is None:
            return self._send(200, content, headers, stop_after)
        start = int(wanted[1])
        headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        self._send(206, content[start:], headers)
