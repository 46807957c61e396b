"""The prompts with tools, and the right kind of answer to each."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

_FILE: Final = Path(__file__).with_name("prompts.yaml")
CALL: Final = "call"
TEXT: Final = "text"
JSON: Final = "json"


@dataclass(frozen=True)
class Prompt:
    """A prompt with tools."""

    tools: list[dict[str, Any]]
    """The functions, each with name, description and parameters."""
    expects: str
    """The right answer: CALL, TEXT or JSON."""
    kind: str
    """The function whose call is right; the kind of JSON."""
    text: str


def prompt_sets() -> list[list[Prompt]]:
    """Return the prompts, in lists of those with the same tools."""
    return [
        [Prompt(entry["tools"], TEXT if kind == "none" else CALL, kind, text) for kind, text in entry["calls"]]
        + [Prompt(entry["tools"], JSON, kind, text) for kind, text in entry["json"]]
        for entry in yaml.safe_load(_FILE.read_text())
    ]
