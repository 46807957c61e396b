"""The Markdown files: their links lead to files and headings, and decision records are numbered."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[2]
SITE_CONTENT: Final = ROOT / "services" / "gateway" / "site" / "content"
"""Links in these files are links of the page, which the tests of the page follow."""
INSTALLED: Final = ("node_modules", "dist")
FENCE: Final = re.compile(r"^ *```.*?^ *```$", re.MULTILINE | re.DOTALL)


def markdown_files() -> Iterator[Path]:
    """Yield the Markdown files of the repository, without those that are installed, built or cached."""
    for directory, directories, files in os.walk(ROOT):
        directories[:] = [name for name in directories if name not in INSTALLED and not name.startswith(".")]
        if Path(directory) != SITE_CONTENT:
            yield from (Path(directory, name) for name in files if name.endswith(".md"))


FILES: Final = sorted(markdown_files())


def name_of(path: Path) -> str:
    """Return the path within the repository."""
    return str(path.relative_to(ROOT))


def prose(path: Path) -> str:
    """Return the text of a file without its code blocks."""
    return FENCE.sub("", path.read_text())


def anchors(path: Path) -> set[str]:
    """Return the anchors that renderers give to the headings of a file."""
    headings = re.findall(r"^#+ (.*)$", prose(path), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_relative_links_lead_to_files_and_headings(path: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(path)):
        if re.match(r"[a-z]+:", link):
            continue
        target, _, anchor = link.partition("#")
        file = (path.parent / target).resolve() if target else path
        assert file.exists(), f"{link} leads to no file"
        assert file.is_relative_to(ROOT), f"{link} leads to a file outside the repository"
        assert not anchor or anchor in anchors(file), f"{link} leads to no heading"


def test_decision_records_are_numbered_without_gaps() -> None:
    records = sorted((ROOT / "docs" / "adr").glob("*.md"))
    assert [path.name[:4] for path in records] == [f"{number:04}" for number in range(1, len(records) + 1)]
    for path in records:
        first, _, status = path.read_text().splitlines()[:3]
        assert first.startswith(f"# {path.name[:4]}: ")
        assert re.match(r"Date: \d{4}-\d{2}-\d{2}.*\. Status: \w+\.", status)
