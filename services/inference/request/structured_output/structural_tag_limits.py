"""Limits on the schemas, regular expressions and grammars in a structural tag."""

from __future__ import annotations

from typing import Any

from services.inference.request.structured_output.grammar_limits import check_grammar
from services.inference.request.structured_output.regex_limits import check_regex
from services.inference.request.structured_output.schema_limits import (
    MAX_ALTERNATIVES,
    check_entries,
    check_schema,
    path_step,
)


def check_structural_tag(field: str, tag: Any) -> None:
    """Raise Failure for a schema, a regular expression or a grammar in a structural tag that exceeds a limit."""
    waiting: list[tuple[str, Any]] = [("$", tag)]
    while waiting:
        path, value = waiting.pop()
        if isinstance(value, list):
            check_entries(field, path, len(value), MAX_ALTERNATIVES)
            waiting += [(f"{path}[{index}]", entry) for index, entry in enumerate(value)]
        elif isinstance(value, dict):
            for key, inner in value.items():
                inner_path = path + path_step(key)
                if key in ("schema", "json_schema"):
                    check_schema(field, inner, at=inner_path)
                elif key in ("pattern", "regex") and isinstance(inner, str):
                    check_regex(field, inner, at=inner_path)
                elif key == "grammar" and isinstance(inner, str):
                    check_grammar(field, inner)
                else:
                    waiting.append((inner_path, inner))
