"""Reads which revision of which repository a directory of weights holds, and whether it is complete."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

COMPLETE: Final = ".vilix-complete"
"""The file that is written last and names the content of the directory; if it matches, the hub is not asked."""
BEGUN: Final = ".vilix-begun"
"""The file that is written first: a download that is continued keeps its commit, even if the branch has moved on."""


@dataclass(frozen=True)
class Revision:
    """One revision of a repository on the hub."""

    repo: str
    revision: str
    """The branch, tag or commit that was requested."""
    commit: str
    """The commit that the hub had for it."""

    def is_requested_by(self, repo: str, revision: str) -> bool:
        """Return whether a request for `revision` of `repo` means this revision."""
        return self.repo == repo and revision in (self.revision, self.commit)


def read(directory: Path, name: str) -> Revision | None:
    """Return what the file `name`, COMPLETE or BEGUN, states; None if there is none, or it is damaged."""
    try:
        stated = json.loads((directory / name).read_text())
        return Revision(str(stated["repo"]), str(stated["revision"]), str(stated["commit"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write(directory: Path, name: str, revision: Revision) -> None:
    """Write the file `name`, COMPLETE or BEGUN, whole or not at all."""
    draft = directory / f"{name}.new"
    draft.write_text(json.dumps(asdict(revision)) + "\n")
    draft.rename(directory / name)
