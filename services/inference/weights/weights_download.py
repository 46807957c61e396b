"""`python -m services.inference.weights.weights_download`: download a model from the hub, complete and verified.

huggingface_hub downloads interrupted files again from the beginning (huggingface/huggingface_hub#4196): see
docs/adr/0011.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path
from typing import Final

from huggingface_hub import HfApi, RepoFile, hf_hub_url
from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError
from pydantic import Field, SecretStr

from services.runtime import settings as settings_module
from services.runtime.settings import Settings
from services.runtime.telemetry import configure_logging

COMPLETE: Final = ".vilix-complete"
"""The file that is written last and names the content of the directory; if it matches, the hub is not asked."""
PARTIAL: Final = ".partial"
SILENCE_SECONDS: Final = 60
"""The time without data after which a download fails."""
CHUNK: Final = 2**20
UNWANTED: Final = ["*.bin", "*.pt", "*.pth", "*.gguf", "*.onnx", "*.h5", "*.msgpack", "*.ot", "original/*"]
"""Files with the same weights in other formats, some of which run code when they are loaded."""
_log: Final = logging.getLogger(__name__)


class DownloadSettings(Settings):
    """Downloads a model's files from the hub or a mirror, and continues where an earlier attempt was interrupted."""

    repo: str = Field(pattern=r"^[^/ ]+/[^/ ]+$", description="The repository, such as Qwen/Qwen3-8B.")
    revision: str = Field("main", min_length=1, description="Branch, tag or commit.")
    endpoint: str = Field("https://huggingface.co", description="The hub, or a mirror of it.")
    token: SecretStr | None = Field(None, description="The hub's token, for private and gated repositories.")
    directory: Path = Field(description="Where the files are put.")
    downloads: int = Field(4, ge=1, description="The most downloads at the same time.")
    attempts: int = Field(10, ge=1, description="How often to try before giving up.")
    retry_seconds: float = Field(10.0, ge=0, description="Time before the second attempt; it doubles, up to 5 minutes.")
    progress_seconds: float = Field(10.0, gt=0, description="Time between two lines of progress.")


class DownloadError(Exception):
    """The files received differ from those that the hub lists."""


def main() -> None:
    """Download the model, or exit with 1 and a line that says why that failed."""
    settings = settings_module.load(DownloadSettings, command="services.inference.weights.weights_download")
    configure_logging("weights")
    logging.getLogger("httpx2").setLevel(logging.WARNING)
    settings.directory.mkdir(parents=True, exist_ok=True)
    with _alone(settings.directory):
        if _is_complete(settings):
            _log.info("%s is complete", settings.repo)
            return
        for attempt in range(1, settings.attempts + 1):
            problem = _try(settings)
            if problem is None:
                return
            if attempt < settings.attempts:
                wait = min(settings.retry_seconds * 2 ** (attempt - 1), 300)
                _log.warning("attempt %d: %s; the next one in %g s", attempt, problem, wait)
                time.sleep(wait)
    print(f"error: {settings.repo}: {problem}", file=sys.stderr)
    raise SystemExit(1)


def _try(settings: DownloadSettings) -> str | None:
    """Try to download, and return the problem, or None. Exits if another attempt would not help."""
    try:
        _download(settings)
    except (RepositoryNotFoundError, RevisionNotFoundError) as error:
        print(
            f"error: {settings.endpoint} has no {settings.repo} at {settings.revision}, or not for this token: {error}",
            file=sys.stderr,
        )
        raise SystemExit(1) from None
    # The library raises errors of its HTTP client, which have no common base class.
    except Exception as error:  # noqa: BLE001  # every fault of an unreliable connection is worth another attempt
        return f"{type(error).__name__}: {error}".splitlines()[0]
    return None


def _download(settings: DownloadSettings) -> None:
    token = settings.token.get_secret_value() if settings.token else ""
    api = HfApi(endpoint=settings.endpoint, token=token or False)
    commit = api.repo_info(settings.repo, revision=settings.revision).sha
    if commit is None:
        raise DownloadError("the hub does not say which commit that is")
    tree = api.list_repo_tree(settings.repo, revision=commit, recursive=True)
    files = [entry for entry in tree if isinstance(entry, RepoFile) and _is_wanted(entry.path)]
    total = sum(file.size for file in files)
    _log.info("%s at %s: %d files, %s", settings.repo, commit[:12], len(files), _gigabytes(total))
    with (
        _progress(settings.directory, total, seconds=settings.progress_seconds),
        ThreadPoolExecutor(settings.downloads) as pool,
    ):
        running = []
        for file in files:
            url = hf_hub_url(settings.repo, file.path, revision=commit, endpoint=settings.endpoint)
            running.append(pool.submit(_get, file, url, settings.directory, token))
        problems = [error for future in as_completed(running) if (error := future.exception()) is not None]
    if problems:
        # The other files are complete, and stay.
        raise problems[0]
    _mark(settings, commit)
    _log.info("%s is complete and verified", settings.repo)


def _is_wanted(path: str) -> bool:
    return not any(fnmatch(path, pattern) for pattern in UNWANTED)


def _get(file: RepoFile, url: str, directory: Path, token: str) -> None:
    """Download a file, verify it and give it its name. A part that was downloaded earlier is continued.

    The hub's own library starts a file anew after a restart of the process, so that a download of 200 GB over an
    unreliable connection may never end (docs/adr/0011).
    """
    target = directory / file.path
    if not target.resolve().is_relative_to(directory.resolve()):
        raise DownloadError(f"{file.path!r} is outside the repository")
    if target.exists() and _is_genuine(target, file):
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(target.name + PARTIAL)
    _continue(partial, file.size, url, token)
    if partial.stat().st_size < file.size:
        raise DownloadError(f"{file.path}: the connection ended early")
    if not _is_genuine(partial, file):
        partial.unlink()
        raise DownloadError(f"{file.path} is damaged")
    partial.rename(target)


def _continue(partial: Path, size: int, url: str, token: str) -> None:
    begin = partial.stat().st_size if partial.exists() else 0
    if begin >= size > 0:
        return
    # The address is the hub's.
    request = urllib.request.Request(url, headers={"Range": f"bytes={begin}-"} if begin else {})  # noqa: S310
    if token:
        # The hub redirects to a storage service that must not receive the token.
        request.add_unredirected_header("Authorization", f"Bearer {token}")
    with (
        urllib.request.urlopen(request, timeout=SILENCE_SECONDS) as response,  # noqa: S310  # as above
        partial.open("ab" if response.status == 206 else "wb") as output,
    ):
        while chunk := response.read(CHUNK):
            output.write(chunk)


def _is_genuine(path: Path, file: RepoFile) -> bool:
    """Return whether the content has the hub's hash: SHA-256 of large files, git's blob hash of others."""
    if path.stat().st_size != file.size:
        return False
    digest = hashlib.sha256() if file.lfs else hashlib.sha1(b"blob %d\0" % file.size, usedforsecurity=False)
    with path.open("rb") as content:
        while chunk := content.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest() == (file.lfs.sha256 if file.lfs else file.blob_id)


def _is_complete(settings: DownloadSettings) -> bool:
    try:
        marked = json.loads((settings.directory / COMPLETE).read_text())
    except (OSError, ValueError):
        return False
    return bool(marked.get("repo") == settings.repo and settings.revision in (marked["revision"], marked["commit"]))


def _mark(settings: DownloadSettings, commit: str) -> None:
    draft = settings.directory / f"{COMPLETE}.new"
    draft.write_text(json.dumps({"repo": settings.repo, "revision": settings.revision, "commit": commit}) + "\n")
    draft.rename(settings.directory / COMPLETE)


@contextmanager
def _alone(directory: Path) -> Iterator[None]:
    """Hold the lock of the directory, which pods of a pool share, so that one process downloads at a time."""
    with (directory / ".vilix-lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _log.info("another process downloads; waiting")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def _progress(directory: Path, total: int, *, seconds: float) -> Iterator[None]:
    done = threading.Event()

    def report() -> None:
        before, since = _bytes_in(directory), time.monotonic()
        while not done.wait(seconds):
            now, clock = _bytes_in(directory), time.monotonic()
            rate = max(0, now - before) / (clock - since) / 1e6
            share = min(100, 100 * now // max(total, 1))
            _log.info("%s of %s (%d %%), %.1f MB/s", _gigabytes(now), _gigabytes(total), share, rate)
            before, since = now, clock

    thread = threading.Thread(target=report, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _bytes_in(directory: Path) -> int:
    total = 0
    for path in directory.rglob("*"):
        try:
            total += path.stat().st_size if path.is_file() else 0
        except FileNotFoundError:
            # The file was renamed meanwhile.
            continue
    return total


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:.2f} GB"


if __name__ == "__main__":
    main()
