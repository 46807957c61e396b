"""Names the arguments that each engine accepts, by `engine_arguments.yaml`."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import yaml

ARGUMENTS: Final[dict[str, dict[str, list[str]]]] = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text())
"""The names by engine, and by where the argument is handled: in the `engine` or in its `library`."""


def known_arguments(engine: str) -> frozenset[str]:
    """Return the names of the arguments that an engine accepts."""
    return frozenset().union(*ARGUMENTS[engine].values())
