"""The JSON Schema of a call, made of the schemas of the functions that may be called."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

_DATA: Final = frozenset({"const", "enum", "default", "examples"})
"""What stands there is no schema, and what looks like a reference in it is none."""
_BY_NAME: Final = frozenset(
    {"properties", "patternProperties", "$defs", "definitions", "dependentSchemas", "dependencies"}
)
"""Their keys are names, whatever they look like."""
_IDENTITY: Final = frozenset({"$id", "id", "$schema"})
"""Of a whole document, which a function's schema no longer is: references would be looked up in it."""


def call_schema(functions: Mapping[str, Any]) -> dict[str, Any]:
    """One call in the notation of Hermes, without its tags: an object of `name` and `arguments`.

    `functions` are the parameters' schemas by name; at least one, none nested too deeply for a recursion. A schema that
    refers to parts of itself becomes a definition of the whole, and its references are made to lead there.
    """
    calls, definitions = [], {}
    for name, parameters in functions.items():
        arguments = {"type": "object", **parameters}
        if _refers(arguments):
            document = {key: value for key, value in arguments.items() if key not in _IDENTITY}
            definitions[name] = _moved(document, f"#/$defs/{name}")
            arguments = {"$ref": f"#/$defs/{name}"}
        calls.append(
            {
                "type": "object",
                "properties": {"name": {"const": name}, "arguments": arguments},
                "required": ["name", "arguments"],
                "additionalProperties": False,
            }
        )
    schema: dict[str, Any] = calls[0] if len(calls) == 1 else {"anyOf": calls}
    return {**schema, "$defs": definitions} if definitions else schema


def _refers(schema: Any) -> bool:
    if isinstance(schema, dict):
        return "$ref" in schema or any(map(_refers, schema.values()))
    return isinstance(schema, list) and any(map(_refers, schema))


def _moved(schema: Any, root: str) -> Any:
    """A schema whose references to its own document lead to `root` in another one."""
    if isinstance(schema, list):
        return [_moved(entry, root) for entry in schema]
    if not isinstance(schema, dict):
        return schema
    moved: dict[str, Any] = {}
    for key, value in schema.items():
        if key == "$ref" and isinstance(value, str) and (value == "#" or value.startswith("#/")):
            moved[key] = root + value[1:]
        elif key in _DATA:
            moved[key] = value
        elif key in _BY_NAME and isinstance(value, dict):
            moved[key] = {name: _moved(inner, root) for name, inner in value.items()}
        else:
            moved[key] = _moved(value, root)
    return moved
