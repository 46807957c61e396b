"""`python -m services.inference.weights.weights_download`: download a model from the hub, complete and verified.

huggingface_hub downloads interrupted files again from the beginning (huggingface/huggingface_hub#4196): see
docs/adr/0011.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path
from typing import Final

from huggingface_hub import HfApi, RepoFile, hf_hub_url
from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError
from pydantic import Field, SecretStr

from services.inference.weights import directory_lock, old_revisions
from services.inference.weights import revision as revisions
from services.inference.weights.resumable_download import (
    CHUNK,
    AccessDeniedError,
    DownloadError,
    continue_download,
    size_of,
)
from services.inference.weights.revision import BEGUN, COMPLETE, Revision
from services.runtime import settings as settings_module
from services.runtime.settings import Settings
from services.runtime.telemetry import configure_logging

PARTIAL: Final = ".partial"
UNWANTED: Final = ["*.bin", "*.pt", "*.pth", "*.gguf", "*.onnx", "*.h5", "*.msgpack", "*.ot", "original/*"]
"""Files with the same weights in other formats, some of which run code when they are loaded."""
_log: Final = logging.getLogger(__name__)


class DownloadSettings(Settings):
    """Downloads a model's files from the hub or a mirror, and continues where an earlier attempt was interrupted."""

    repo: str = Field(pattern=r"^[^/ ]+/[^/ ]+$", description="The repository, such as Qwen/Qwen3-8B.")
    revision: str = Field("main", min_length=1, description="Branch, tag or commit.")
    endpoint: str = Field("https://huggingface.co", description="The hub, or a mirror of it.")
    token: SecretStr | None = Field(None, description="The hub's token, for private and gated repositories.")
    directory: Path = Field(
        description="Where the files are put. Each revision needs a directory of its own, because servers that run may "
        "read the files of the last one."
    )
    keep: int = Field(
        0,
        ge=0,
        description="How many revisions stay in the directories beside this one, it included. 0 is for a revision that "
        "is not to be served yet: nothing is removed.",
    )
    downloads: int = Field(4, ge=1, description="The most downloads at the same time.")
    attempts: int = Field(10, ge=1, description="How often to try before giving up.")
    retry_seconds: float = Field(10.0, ge=0, description="Time before the second attempt; it doubles, up to 5 minutes.")
    progress_seconds: float = Field(10.0, gt=0, description="Time between two lines of progress.")


class HopelessError(Exception):
    """Another attempt would not help."""


def main() -> None:
    """Download the model, or exit with 1 and a line that says why that failed."""
    settings = settings_module.load(DownloadSettings, command="services.inference.weights.weights_download")
    configure_logging("weights")
    logging.getLogger("httpx2").setLevel(logging.WARNING)
    try:
        _ensure_complete(settings)
    except HopelessError as error:
        print(f"error: {settings.repo}: {error}", file=sys.stderr)
        raise SystemExit(1) from None


def _ensure_complete(settings: DownloadSettings) -> None:
    with _writable(settings.directory):
        settings.directory.mkdir(parents=True, exist_ok=True)
        # Several jobs, or pods, may share the directory.
        with directory_lock.held(settings.directory, on_wait=lambda: _log.info("another process downloads; waiting")):
            if _is_complete(settings):
                _log.info("%s is complete", settings.repo)
            else:
                _download_with_attempts(settings)
            if settings.keep:
                old_revisions.note_use(settings.directory)
                old_revisions.remove(settings.directory, keep=settings.keep)


@contextmanager
def _writable(directory: Path) -> Iterator[None]:
    """Explain the volume's rejection of this user."""
    try:
        yield
    except (PermissionError, NotADirectoryError) as error:
        groups = ", ".join(map(str, sorted({os.getgid(), *os.getgroups()})))
        raise HopelessError(
            f"{error.filename or directory}: {error.strerror} for user {os.getuid()} with groups {groups}; the "
            "directory must be writable for one of them (on Kubernetes, podSecurityContext.fsGroup or "
            "supplementalGroups of the chart)"
        ) from None


def _download_with_attempts(settings: DownloadSettings) -> None:
    for attempt in range(1, settings.attempts + 1):
        problem = _try(settings)
        if problem is None:
            return
        if attempt < settings.attempts:
            wait = min(settings.retry_seconds * 2 ** (attempt - 1), 300)
            _log.warning("attempt %d: %s; the next one in %g s", attempt, problem, wait)
            time.sleep(wait)
    raise HopelessError(problem)


def _try(settings: DownloadSettings) -> str | None:
    """Try to download, and return the problem, or None. Raises HopelessError if another attempt would not help."""
    try:
        _download(settings)
    except (HopelessError, PermissionError):
        raise
    except (RepositoryNotFoundError, RevisionNotFoundError) as error:
        raise HopelessError(
            f"{settings.endpoint} has no such repository at {settings.revision}, or not for this token: {error}"
        ) from None
    # The library raises errors of its HTTP client, which have no common base class.
    except Exception as error:  # noqa: BLE001  # every fault of an unreliable connection is worth another attempt
        if isinstance(error, AccessDeniedError) or _is_denied(error):
            raise HopelessError(
                f"{settings.endpoint} denies access at {settings.revision} ({_first_line(error)}): accept the terms of "
                "a gated repository there, and set a token of that account"
            ) from None
        return f"{type(error).__name__}: {_first_line(error)}"
    return None


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _is_denied(error: Exception) -> bool:
    return isinstance(error, HfHubHTTPError) and error.response.status_code in (401, 403)


def _download(settings: DownloadSettings) -> None:
    token = settings.token.get_secret_value() if settings.token else ""
    api = HfApi(endpoint=settings.endpoint, token=token or False)
    commit = _commit(settings, api)
    tree = api.list_repo_tree(settings.repo, revision=commit, recursive=True)
    files = [entry for entry in tree if isinstance(entry, RepoFile) and _is_wanted(entry.path)]
    total = sum(file.size for file in files)
    _log.info("%s at %s: %d files, %s", settings.repo, commit[:12], len(files), _gigabytes(total))
    _check_space(settings.directory, files)
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
    revisions.write(settings.directory, COMPLETE, Revision(settings.repo, settings.revision, commit))
    (settings.directory / BEGUN).unlink(missing_ok=True)
    _log.info("%s is complete and verified", settings.repo)


def _commit(settings: DownloadSettings, api: HfApi) -> str:
    """Return the commit to download: the one that was begun, or else the hub's.

    Raises:
        HopelessError: The directory has another revision. Its files must not be mixed with those of this one, and
            servers may still read them.
    """
    complete = revisions.read(settings.directory, COMPLETE)
    begun = revisions.read(settings.directory, BEGUN)
    if begun is not None and begun.is_requested_by(settings.repo, settings.revision):
        return begun.commit
    commit = api.repo_info(settings.repo, revision=settings.revision).sha
    if commit is None:
        raise DownloadError("the hub does not say which commit that is")
    for other in (complete, begun):
        if other is not None and (other.repo, other.commit) != (settings.repo, commit):
            raise HopelessError(
                f"{settings.directory} has {other.repo} at {other.commit[:12]}; {commit[:12]} needs another directory"
            )
    revisions.write(settings.directory, BEGUN, Revision(settings.repo, settings.revision, commit))
    return commit


def _check_space(directory: Path, files: list[RepoFile]) -> None:
    """Raise HopelessError if the volume is too small for what is missing."""
    missing = sum(file.size - min(file.size, _received(directory / file.path)) for file in files)
    usage = shutil.disk_usage(directory)
    # Some file systems without a fixed size report 0.
    if usage.total and missing > usage.free:
        raise HopelessError(
            f"{_gigabytes(missing)} are missing, but {directory} has only {_gigabytes(usage.free)} of free space"
        )


def _received(target: Path) -> int:
    return max(size_of(target), size_of(target.with_name(target.name + PARTIAL)))


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
    continue_download(url, partial, size=file.size, token=token)
    if partial.stat().st_size < file.size:
        raise DownloadError(f"{file.path}: the connection ended early")
    if not _is_genuine(partial, file):
        partial.unlink()
        raise DownloadError(f"{file.path} is damaged")
    partial.rename(target)


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
    complete = revisions.read(settings.directory, COMPLETE)
    return complete is not None and complete.is_requested_by(settings.repo, settings.revision)


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
