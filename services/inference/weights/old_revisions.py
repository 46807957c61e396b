"""Removes the oldest revisions of a model's weights, each of which has a directory of its own."""

from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path
from typing import Final

from services.inference.weights.revision import BEGUN, COMPLETE

_log: Final = logging.getLogger(__name__)


def note_use(directory: Path) -> None:
    """Make a complete directory the newest one, so that a rollback does not remove what it returned to."""
    os.utime(directory / COMPLETE)


def remove(current: Path, *, keep: int) -> None:
    """Keep `keep` revisions beside and including `current`: it, and the last ones that were complete or used.

    Directories that this program did not write are never touched.
    """
    others = [path for path in current.parent.iterdir() if path != current and path.is_dir()]
    complete = [path for path in others if (path / COMPLETE).is_file()]
    complete.sort(key=lambda path: (path / COMPLETE).stat().st_mtime, reverse=True)
    interrupted = [path for path in others if (path / BEGUN).is_file() and path not in complete]
    for path in [*complete[max(keep - 1, 0) :], *interrupted]:
        _log.info("removing the weights of an earlier revision: %s", path.name)
        # First what makes it count as complete: nobody must use a part of it.
        (path / COMPLETE).unlink(missing_ok=True)
        shutil.rmtree(path)
