"""Downloads a file over HTTP, and continues where an earlier attempt was interrupted."""

from __future__ import annotations

import hashlib
import http.client
import re
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Final

CONNECT_SECONDS: Final = 10
"""The time in which each address of a server must accept a connection. Firewalls that block it often do not answer."""
SILENCE_SECONDS: Final = 60
"""The time without data after which a download fails."""
CHUNK: Final = 2**20
_NUMBER: Final = re.compile("[0-9]{1,18}")
_CONTENT_RANGE: Final = re.compile("bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18}|[*])")
_NETWORK_ERRORS: Final = (OSError, http.client.HTTPException, ValueError)
"""The errors of `urllib`: ValueError is for an address that is none."""


class DownloadError(Exception):
    """A download failed, or what was received is not what was expected."""


class ConnectionFailedError(DownloadError):
    """The server cannot be reached, rejected the request, or the connection broke."""


class AccessDeniedError(ConnectionFailedError):
    """The server requires a token, or does not allow this one to read the file. Another attempt would not help."""


def size_of(path: Path) -> int:
    """Return the size of a file in bytes; 0 if it does not exist."""
    return path.stat().st_size if path.exists() else 0


def continue_download(
    url: str,
    partial: Path,
    *,
    size: int | None = None,
    most: int | None = None,
    token: str = "",
    report: Callable[[int], None] = lambda _: None,
) -> None:
    """Append to `partial` what it lacks of the file at `url`.

    Args:
        url: The address of the file.
        partial: What earlier attempts have received. It is begun anew if the server cannot continue.
        size: The size of the file in bytes, if it is known. If `partial` has it, nothing is requested.
        most: The size in bytes that the file must not exceed.
        token: A bearer token for the server. Servers that it redirects to do not receive it.
        report: Called with the size of `partial` in bytes, at the beginning and after each chunk.

    Raises:
        AccessDeniedError: The server does not allow the file to be read.
        ConnectionFailedError: The file could not be received completely; another attempt continues.
        DownloadError: The file is larger than `most`.
        OSError: `partial` cannot be written.
    """
    begin = size_of(partial)
    if size is not None and begin >= size > 0:
        return
    request = _request(url, {"Range": f"bytes={begin}-"} if begin else {}, token)
    try:
        response = urllib.request.build_opener(_Handler).open(request, timeout=SILENCE_SECONDS)
    except urllib.error.HTTPError as error:
        with error:
            if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and begin and size is None:
                # Nothing follows: an earlier attempt was interrupted after the last byte.
                return
            denied = error.code in (http.HTTPStatus.UNAUTHORIZED, http.HTTPStatus.FORBIDDEN)
            failure = AccessDeniedError if denied else ConnectionFailedError
            raise failure(f"HTTP {error.code} {error.reason}".strip()) from None
    except _NETWORK_ERRORS as error:
        raise ConnectionFailedError(_one_line(error)) from None
    with response:
        start, total = _extent(response)
        if start not in (0, begin):
            raise ConnectionFailedError(f"the server continues at byte {start:,} and not at {begin:,}")
        if size is not None and total is not None and total != size:
            # A page that asks for a login, for instance. What earlier attempts have received is kept.
            raise ConnectionFailedError(f"the server has a file of {total:,} bytes; it must have {size:,}")
        with partial.open("ab" if start else "wb") as output:
            received = start
            report(received)
            while chunk := _read(response):
                received += len(chunk)
                if most is not None and received > most:
                    raise DownloadError(f"the file has more than {most:,} bytes")
                output.write(chunk)
                report(received)
    expected = total if size is None else size
    if expected is not None and received < expected:
        raise ConnectionFailedError(f"the connection ended after {received:,} of {expected:,} bytes")


def sha256_of(path: Path, *, report: Callable[[int], None] = lambda _: None) -> str:
    """Return the SHA-256 of a file in hexadecimal. `report` is called with the number of bytes that were read."""
    digest, done = hashlib.sha256(), 0
    with path.open("rb") as content:
        while chunk := content.read(CHUNK):
            digest.update(chunk)
            done += len(chunk)
            report(done)
    return digest.hexdigest()


def _request(url: str, headers: dict[str, str], token: str) -> urllib.request.Request:
    try:
        request = urllib.request.Request(url, headers=headers)  # noqa: S310  # addresses are configured
    except ValueError as error:
        raise ConnectionFailedError(_one_line(error)) from None
    if token:
        request.add_unredirected_header("Authorization", f"Bearer {token}")
    return request


def _extent(response: http.client.HTTPResponse) -> tuple[int, int | None]:
    """Return the place in the file where the response begins, and the size of the whole file, if it is known."""
    length = response.headers.get("Content-Length", "")
    if response.status != http.HTTPStatus.PARTIAL_CONTENT:
        return 0, int(length) if _NUMBER.fullmatch(length) else None
    content_range = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
    if content_range is None:
        raise ConnectionFailedError("the server does not say which part of the file it sends")
    first, last, total = content_range.groups()
    return int(first), int(last) + 1 if total == "*" else int(total)


def _read(response: http.client.HTTPResponse) -> bytes:
    try:
        return response.read1(CHUNK)
    except _NETWORK_ERRORS as error:
        raise ConnectionFailedError(f"the connection broke: {_one_line(error)}") from None


def _one_line(error: Exception) -> str:
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    text = reason.strerror if isinstance(reason, OSError) and reason.strerror else str(reason)
    return " ".join(text.split()) or type(error).__name__


class _Connection(http.client.HTTPConnection):
    """A connection that must be established sooner than data must arrive."""

    def connect(self) -> None:
        silence, self.timeout = self.timeout, CONNECT_SECONDS
        super().connect()
        self.sock.settimeout(silence)


class _SecureConnection(http.client.HTTPSConnection):
    def connect(self) -> None:
        silence, self.timeout = self.timeout, CONNECT_SECONDS
        super().connect()
        self.sock.settimeout(silence)


class _Handler(urllib.request.HTTPSHandler, urllib.request.HTTPHandler):
    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_Connection, req)

    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_SecureConnection, req)
