"""Files that no other user of the machine can read."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from services.stack import triton
from services.stack.supervisor import StackError

LONGEST_NAME = "x" * 40
"""A name as long as the longest expected id of a model."""


def make_private(directory: Path) -> None:
    """Create a directory that only its owner can enter, or restrict an existing one.

    Raises:
        StackError: The directory cannot be created or used, or is meant for all users, such as /tmp.
    """
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if directory.stat().st_mode & stat.S_ISVTX:
            raise StackError(
                f"{directory} is shared by all users of this machine; choose a directory only for the stack"
            )
        directory.chmod(0o700)
        (directory / "lock").touch(mode=0o600)
    except OSError as error:
        raise StackError(
            f"{directory} cannot be the state directory: {error.strerror}; choose another one with --state-dir"
        ) from None


def write(path: Path, text: str) -> None:
    """Write a file that only its owner can read. It is made private before it has any content."""
    path.touch(mode=0o600)
    path.chmod(0o600)
    path.write_text(text)


def tighten(directory: Path) -> None:
    """Remove other users' permissions, which an earlier release granted, from everything in `directory`."""
    for parent, directories, files in os.walk(directory):
        for name in (*directories, *files):
            path = os.path.join(parent, name)  # noqa: PTH118  # there may be many
            mode = os.lstat(path).st_mode
            if not stat.S_ISLNK(mode) and mode & 0o077:
                os.chmod(path, stat.S_IMODE(mode) & ~0o077)  # noqa: PTH101  # as above


@contextlib.contextmanager
def by_default() -> Iterator[None]:
    """Create files privately in this process and its children, until the context ends."""
    before = os.umask(0o077)
    try:
        yield
    finally:
        os.umask(before)


@contextlib.contextmanager
def short_directory(preferred: Path) -> Iterator[Path]:
    """Yield a private directory for sockets, and remove it at the end.

    It is `preferred`, or a temporary directory if the path of `preferred` is too long for sockets.
    """
    preferred = preferred.absolute()
    if triton.fits(preferred / LONGEST_NAME):
        shutil.rmtree(preferred, ignore_errors=True)
        preferred.mkdir(mode=0o700)
        directory = preferred
    else:
        directory = Path(tempfile.mkdtemp(prefix="vilix-"))
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)
