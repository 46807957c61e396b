"""Says of each object in a schema whether it may have further properties, so that all engines read it alike.

By JSON Schema, an object may have properties that its schema does not list. xgrammar excludes them, and llguidance
makes models invent them. Here, an object that lists its properties has no others unless the schema says so, as in
OpenAI's structured output. That only narrows what conforms to the schema.
"""

from __future__ import annotations

from typing import Any, Final

_COMBINING: Final = frozenset(
    {"not", "if", "then", "else", "dependentSchemas", "dependencies", "unevaluatedProperties"}
    | {"$dynamicRef", "$recursiveRef"}
)
"""Keywords by which several schemas apply to one object, so that none of them knows all of its properties."""
_APPLIED: Final = frozenset({"anyOf", "oneOf", "allOf", "$ref"})
"""Keywords whose schemas apply to the same object as the one that has them."""
_OF_OBJECTS: Final = frozenset({"properties", "required", "patternProperties", "additionalProperties"})
_DATA: Final = frozenset({"const", "enum", "default", "examples", "required"})
_BY_NAME: Final = frozenset({"properties", "patternProperties", "$defs", "definitions"})


def closed(schema: Any) -> Any:
    """Return a schema whose objects say whether they may have further properties.

    A schema that combines several schemas for one object is returned unchanged.
    """
    return schema if _combines(schema) else _closed(schema)


def _combines(schema: Any) -> bool:
    if isinstance(schema, list):
        return any(map(_combines, schema))
    if not isinstance(schema, dict):
        return False
    applied = _APPLIED & schema.keys()
    several = len(applied) + bool(_OF_OBJECTS & schema.keys()) > 1 or len(schema.get("allOf") or ()) > 1
    if several or not _COMBINING.isdisjoint(schema):
        return True
    return any(
        any(map(_combines, value.values())) if key in _BY_NAME and isinstance(value, dict) else _combines(value)
        for key, value in schema.items()
        if key not in _DATA
    )


def _closed(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_closed(entry) for entry in schema]
    if not isinstance(schema, dict):
        return schema
    result: dict[str, Any] = {}
    for key, value in schema.items():
        if key in _DATA:
            result[key] = value
        elif key in _BY_NAME and isinstance(value, dict):
            result[key] = {name: _closed(inner) for name, inner in value.items()}
        else:
            result[key] = _closed(value)
    if "additionalProperties" not in schema and "patternProperties" not in schema and _APPLIED.isdisjoint(schema):
        properties = schema.get("properties")
        if isinstance(properties, dict) and properties:
            if _lists_all(schema, properties):
                result["additionalProperties"] = False
        elif schema.get("type") == "object":
            result["additionalProperties"] = True
    return result


def _lists_all(schema: dict[str, Any], properties: dict[str, Any]) -> bool:
    """Return whether an object can do with the properties that are listed."""
    required, least = schema.get("required", []), schema.get("minProperties", 0)
    return (
        isinstance(required, list)
        and all(name in properties for name in required)
        and isinstance(least, int)
        and least <= len(properties)
    )
