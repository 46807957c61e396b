"""The option `--json`, and how JSON is printed."""

from __future__ import annotations

import json
import re
from typing import Annotated, Any, Final

import typer

_CONTROLS: Final = re.compile("[\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
"""JSON escapes only those below a space."""
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def print_json(value: Any) -> None:
    """Print a value as one line of JSON, in which no character controls the terminal."""
    print(_CONTROLS.sub(lambda found: f"\\u{ord(found[0]):04x}", json.dumps(value, ensure_ascii=False)))
