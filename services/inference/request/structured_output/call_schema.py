"""Builds the JSON Schema of a call from the schemas of the functions that may be called."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote, urljoin

from services.inference.request.structured_output.closed_objects import closed

_DATA: Final = frozenset({"const", "enum", "default", "examples"})
"""Keywords whose values are not schemas, so that a `$ref` in them is not a reference."""
_BY_NAME: Final = frozenset(
    {"properties", "patternProperties", "$defs", "definitions", "dependentSchemas", "dependencies"}
)
"""Keywords whose values are schemas by name."""
_IDENTITY: Final = frozenset({"$id", "id", "$schema"})
"""Keywords of whole documents, which a function's schema no longer is: references would be resolved in it."""
_REFERENCES: Final = frozenset({"$ref", "$dynamicRef", "$recursiveRef"})
_ANCHORS: Final = frozenset({"$anchor", "$dynamicAnchor", "$recursiveAnchor"})


def call_schema(functions: Mapping[str, Any]) -> dict[str, Any]:
    """Return the schema of a call in the notation of Hermes, without its tags: an object of `name` and `arguments`.

    `functions` are the schemas of the parameters by name: at least one, and none nested too deeply for recursion. A
    schema that refers to parts of itself becomes a definition in the result, and its references are rewritten.
    """
    calls, definitions = [], {}
    for name, parameters in functions.items():
        arguments = closed({"type": "object", **parameters})
        if _refers(arguments):
            definitions[name] = _Move(arguments, f"#/$defs/{name}").moved
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
        return not _REFERENCES.isdisjoint(schema) or any(map(_refers, schema.values()))
    return isinstance(schema, list) and any(map(_refers, schema))


class _Move:
    """Moves a document into another one, to the pointer `root`, and rewrites the references to it and to its parts."""

    def __init__(self, document: Mapping[str, Any], root: str) -> None:
        """Move `document`; the result is `moved`."""
        self._root: Final = root
        named = document.get("$id", document.get("id"))
        self._own_id: Final = named.partition("#")[0] if isinstance(named, str) else ""
        self._documents: Final = {self._own_id: ""}
        """Pointers to subschemas by id. Ids and anchors are removed: engines lack them, and functions may share one."""
        self._anchors: Final[dict[str, str]] = {}
        content = {key: value for key, value in document.items() if key not in _IDENTITY}
        self._find_names(content, "")
        self.moved: Final = self._moved(content)

    def _find_names(self, schema: Any, pointer: str) -> None:
        if isinstance(schema, list):
            for index, entry in enumerate(schema):
                self._find_names(entry, f"{pointer}/{index}")
        elif isinstance(schema, dict):
            for key, value in schema.items():
                if _is_name(key, value):
                    self._note(str(value), pointer, is_anchor=key in _ANCHORS)
                elif key in _BY_NAME and isinstance(value, dict):
                    for name, inner in value.items():
                        self._find_names(inner, f"{pointer}/{key}/{_step(name)}")
                elif key not in _DATA:
                    self._find_names(value, f"{pointer}/{_step(key)}")

    def _note(self, name: str, pointer: str, *, is_anchor: bool) -> None:
        if is_anchor or name.startswith("#"):
            self._anchors.setdefault(name.removeprefix("#"), pointer)
        else:
            self._documents.setdefault(self._absolute(name).partition("#")[0], pointer)

    def _moved(self, schema: Any) -> Any:
        if isinstance(schema, list):
            return [self._moved(entry) for entry in schema]
        if not isinstance(schema, dict):
            return schema
        moved: dict[str, Any] = {}
        for key, value in schema.items():
            if key in _REFERENCES and isinstance(value, str):
                # Within one document, all kinds have the same target, and engines support `$ref`.
                moved[key if "$ref" in schema else "$ref"] = self._target(value)
            elif key in _DATA:
                moved[key] = value
            elif key in _BY_NAME and isinstance(value, dict):
                moved[key] = {name: self._moved(inner) for name, inner in value.items()}
            elif not _is_name(key, value):
                moved[key] = self._moved(value)
        return moved

    def _target(self, reference: str) -> str:
        base, _, fragment = self._absolute(reference).partition("#")
        pointer = self._documents.get(base)
        if pointer is not None and (not fragment or fragment.startswith("/")):
            return self._root + pointer + fragment
        if pointer is not None and fragment in self._anchors:
            return self._root + self._anchors[fragment]
        return reference

    def _absolute(self, reference: str) -> str:
        if reference.startswith("#"):
            return self._own_id + reference
        try:
            return urljoin(self._own_id, reference)
        except ValueError:
            return reference


def _is_name(key: str, value: Any) -> bool:
    return key in _ANCHORS or (key == "$id" and isinstance(value, str))


def _step(name: str) -> str:
    """Return the step of a JSON pointer to the entry `name`."""
    return quote(name.replace("~", "~0").replace("/", "~1"), safe="~$")
