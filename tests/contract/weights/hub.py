"""A stand-in for the model hub, which cannot be reached from tests: the five requests that a download makes of it."""

from __future__ import annotations

import hashlib
import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

REPO = "us/our-model"
COMMIT = "1" * 40


class Hub:
    """One repository. Its faults are set by a test, and used up."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = files
        self.cut_after: list[int] = []
        """Bytes after which the connection of a coming large download is cut."""
        self.damage = 0
        """How many coming large downloads are damaged."""
        self.token = ""
        self.commit = COMMIT
        self.denied = 0
        """The status of all files for callers that may read only what the repository contains; 0 allows everything."""
        self.size_reported = 0
        """The size of large files that the list reports instead of their own."""
        self.ranges: list[str] = []
        self.requests: list[str] = []
        self.url = ""

    def entry(self, path: str) -> dict[str, Any]:
        content = self.files[path]
        blob = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
        entry = {"type": "file", "path": path, "size": len(content), "oid": blob}
        if self.is_large(path):
            sha = hashlib.sha256(content).hexdigest()
            entry["size"] = self.size_reported or len(content)
            entry["lfs"] = {"oid": sha, "size": entry["size"], "pointerSize": 130}
        return entry

    @staticmethod
    def is_large(path: str) -> bool:
        return path.endswith((".safetensors", ".bin"))

    def etag(self, path: str) -> str:
        entry = self.entry(path)
        return str(entry["lfs"]["oid"] if "lfs" in entry else entry["oid"])


@contextmanager
def running_hub(files: dict[str, bytes], *, tls: Path | None = None) -> Iterator[Hub]:
    """Serve the repository on 127.0.0.1, with the certificate for `localhost` in the directory `tls`, if any."""
    hub = Hub(files)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self._answer(with_body=False)

        def do_GET(self) -> None:
            self._answer(with_body=True)

        def log_message(self, *args: object) -> None:
            pass

        def _answer(self, *, with_body: bool) -> None:
            # The path that a proxy gets begins with the server's address.
            path = self.path.removeprefix("http://hub.invalid").partition("?")[0]
            hub.requests.append(path)
            if hub.token and self.headers.get("Authorization") != f"Bearer {hub.token}":
                self._send(401, b"{}", {"X-Error-Code": "RepoNotFound"}, with_body=with_body)
            elif path.startswith(f"/api/models/{REPO}/revision/"):
                body = json.dumps({"id": REPO, "sha": hub.commit, "siblings": []}).encode()
                self._send(200, body, {"Content-Type": "application/json"}, with_body=with_body)
            elif path.startswith(f"/api/models/{REPO}/tree/"):
                body = json.dumps([hub.entry(path) for path in hub.files]).encode()
                self._send(200, body, {"Content-Type": "application/json"}, with_body=with_body)
            elif hub.denied:
                self._send(hub.denied, b"{}", {}, with_body=with_body)
            elif path.startswith(f"/{REPO}/resolve/"):
                self._send_file(path.removeprefix(f"/{REPO}/resolve/").partition("/")[2], with_body=with_body)
            else:
                self._send(404, b"{}", {"X-Error-Code": "RepoNotFound"}, with_body=with_body)

        def _send_file(self, name: str, *, with_body: bool) -> None:
            content = hub.files[name]
            headers = {"ETag": f'"{hub.etag(name)}"', "X-Repo-Commit": hub.commit, "Accept-Ranges": "bytes"}
            status, begin = 200, 0
            if with_body and "Range" in self.headers:
                hub.ranges.append(self.headers["Range"])
                begin = int(self.headers["Range"].removeprefix("bytes=").partition("-")[0])
                status = 206
                headers["Content-Range"] = f"bytes {begin}-{len(content) - 1}/{len(content)}"
            body = content[begin:]
            if with_body and hub.is_large(name) and hub.damage:
                hub.damage -= 1
                body = b"\0" + body[1:]
            cut = hub.cut_after.pop(0) if with_body and hub.is_large(name) and hub.cut_after else None
            self._send(status, body, headers, with_body=with_body, cut=cut)

        def _send(
            self, status: int, body: bytes, headers: dict[str, str], *, with_body: bool, cut: int | None = None
        ) -> None:
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            if with_body:
                self.wfile.write(body[:cut])
            if cut is not None:
                self.wfile.flush()
                self.close_connection = True

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    if tls is not None:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(tls / "tls.crt", tls / "tls.key")
        server.socket = context.wrap_socket(server.socket, server_side=True)
        hub.url = f"https://localhost:{server.server_address[1]}"
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
