"""Removes the oldest revisions of a model's weights, each of which has a directory of its own."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import Final

from services.inference.weights import directory_lock
from services.inference.weights.revision import BEGUN, COMPLETE

_USED: Final = ".vilix-used"
"""The file whose time says when a revision became the one to serve."""
_log: Final = logging.getLogger(__name__)


def note_use(directory: Path) -> None:
    """Note that a complete directory is the one to serve, also after a rollback."""
    (directory / _USED).touch()


def remove(current: Path, *, keep: int) -> None:
    """Keep `keep` revisions beside and including `current`: it, and the last ones that were used or are complete.

    Pods may still read what was used last, so that it stays before what was downloaded and never served. Directories
    that this program did not write, and those of downloads that run, are never touched.
    """
    others = [path for path in current.parent.iterdir() if path != current and path.is_dir()]
    complete = [path for path in others if (path / COMPLETE).is_file()]
    complete.sort(key=lambda path: (_time(path / _USED), _time(path / COMPLETE)), reverse=True)
    interrupted = [
        path
        for path in others
        if path not in complete and (path / BEGUN).is_file() and not directory_lock.is_held(path)
    ]
    for path in [*complete[max(keep - 1, 0) :], *interrupted]:
        _log.info("removing the weights of an earlier revision: %s", path.name)
        # First what makes it count as complete: nobody must use a part of it.
        (path / COMPLETE).unlink(missing_ok=True)
        shutil.rmtree(path)


def _time(path: Path) -> float:
    """Return when a file was changed last, or 0 if there is none."""
    return path.stat().st_mtime if path.exists() else 0
