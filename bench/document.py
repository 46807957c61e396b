"""docs/benchmarks.md, in which each benchmark has a section that its last run has written."""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

PAGE: Final = Path(__file__).parents[1] / "docs" / "benchmarks.md"
TITLES: Final = {
    "gateway": "The gateway with all features, compared with LiteLLM and with direct calls",
    "tokens": "What a token and a short request cost",
    "local_model": "The local model through the whole system, compared with its engine alone",
    "cpu_engine": "The CPU engine, compared with the server inside xllamacpp",
    "limits": "Keys and limits",
    "embeddings": "Embeddings",
    "page": "The page",
}
"""The benchmarks by the names of their packages, in the order of the page."""
HEAD: Final = """\
# Benchmarks

`make bench` measures these figures and writes this page, section by section; `make bench-tokens` writes only
[what a token and a short request cost](#what-a-token-and-a-short-request-cost). A figure is the median over several
rounds, with their range in parentheses; the compared systems take turns. Ratios can be compared between machines,
absolute times cannot. Each part is a program of its own in [bench](../bench), and `--help` lists its options.
"""


def measured_here() -> str:
    """Return when and on what something is measured now, as a sentence."""
    cores, when = len(os.sched_getaffinity(0)), f"{datetime.now(UTC):%Y-%m-%d}"
    return f"Measured on {when}: {cores} cores ({platform.machine()}), Linux, Python {platform.python_version()}."


def replace(part: str, text: str, *, page: Path = PAGE) -> None:
    """Replace the section of a benchmark by `text`, whose headings have at least three levels, or add it."""
    _, *sections = page.read_text().split("\n## ") if page.exists() else [""]
    texts = {title: content.strip() for title, _, content in (section.partition("\n") for section in sections)}
    texts[TITLES[part]] = text.strip()
    written = [f"## {title}\n\n{texts[title]}\n" for title in TITLES.values() if title in texts]
    page.write_text("\n".join([HEAD, *written]))
