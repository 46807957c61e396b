"""Anthropic's own tools: those that a client runs have a known schema, those that Anthropic's servers run are absent.

The schemas are those of https://platform.claude.com/docs/en/agents-and-tools/tool-use.
"""

from __future__ import annotations

import re
from typing import Any, Final, NamedTuple

_TEXT: Final = {"type": "string"}
_LINES: Final = {"type": "array", "items": {"type": "integer"}}


class ClientTool(NamedTuple):
    """A tool whose name and schema follow from its type."""

    description: str
    input_schema: dict[str, Any]


def _object(required: list[str], **properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": required}


def _commands(*names: str) -> dict[str, Any]:
    return {"type": "string", "enum": list(names)}


_TOOLS: Final = {
    "bash": ClientTool(
        "Run a command in a persistent bash session. `restart` begins a new session.",
        _object([], command=_TEXT, restart={"type": "boolean"}),
    ),
    "text_editor": ClientTool(
        "View, create and edit text files.",
        _object(
            ["command", "path"],
            command=_commands("view", "create", "str_replace", "insert"),
            path=_TEXT,
            file_text=_TEXT,
            old_str=_TEXT,
            new_str=_TEXT,
            insert_line={"type": "integer"},
            insert_text=_TEXT,
            view_range=_LINES,
        ),
    ),
    "memory": ClientTool(
        "Keep notes in files below /memories.",
        _object(
            ["command"],
            command=_commands("view", "create", "str_replace", "insert", "delete", "rename"),
            path=_TEXT,
            file_text=_TEXT,
            old_str=_TEXT,
            new_str=_TEXT,
            insert_line={"type": "integer"},
            insert_text=_TEXT,
            old_path=_TEXT,
            new_path=_TEXT,
            view_range=_LINES,
        ),
    ),
}
_DATED: Final = re.compile(r"(?P<kind>[a-z_]+)_\d{8}")


def client_tool(type_: str) -> ClientTool | None:
    """Return the tool of a type such as `bash_20250124`; None for one that the client does not run."""
    dated = _DATED.fullmatch(type_)
    return _TOOLS.get(dated["kind"]) if dated else None
