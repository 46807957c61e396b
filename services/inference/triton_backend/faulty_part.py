"""Finds the part of a JSON Schema that an engine's library does not compile, by compiling parts of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any, Final

from services.inference.triton_backend.contract import STRUCTURED_OUTPUT
from services.inference.triton_backend.held_calls import schemas_of
from services.worker.triton_kit.request_error import RequestError

MOST_COMPILED: Final = 200
"""The most parts that are compiled to find the faulty one."""
_MOST_CHARACTERS: Final = 80
_DEFINITIONS: Final = ("$defs", "definitions")
_BY_NAME: Final = frozenset({*_DEFINITIONS, "properties", "patternProperties"})
_LISTS: Final = frozenset({"anyOf", "oneOf", "allOf", "prefixItems", "items"})
_ONE: Final = frozenset({"items", "additionalProperties", "not", "if", "then", "else", "contains", "propertyNames"})

Pointer = tuple[str | int, ...]


def located(kind: str, text: str, compiles: Callable[[str], bool]) -> RequestError | None:
    """Return the error that names the faulty part of the schemas in a structured output, or None if none is found.

    The error's parameter `at` is a JSON list: whether the schema is that of calls, and the steps to the part.

    `compiles` returns whether the library compiles a JSON Schema.
    """
    for is_call, schema in schemas_of(kind, text):
        found = _Search(schema, compiles).find()
        if found is not None:
            pointer, value = found
            excerpt = json.dumps(value, ensure_ascii=False)
            if len(excerpt) > _MOST_CHARACTERS:
                excerpt = excerpt[: _MOST_CHARACTERS - 3] + "..."
            return RequestError(
                "INVALID_ARGUMENT",
                "schema_part_not_valid",
                field=STRUCTURED_OUTPUT,
                at=json.dumps([is_call, *pointer]),
                value=excerpt,
            )
    return None


class _Search:
    def __init__(self, schema: Any, compiles: Callable[[str], bool]) -> None:
        self._schema: Final = schema
        self._compiles: Final = compiles
        self._left = MOST_COMPILED
        self._definitions: Final = (
            {name: schema[name] for name in _DEFINITIONS if name in schema} if isinstance(schema, dict) else {}
        )

    def find(self) -> tuple[Pointer, Any] | None:
        """Return the pointer to the faulty part and its value."""
        if not isinstance(self._schema, dict) or self._is_valid(self._schema):
            return None
        pointer: Pointer = ()
        part = self._schema
        while (inner := self._faulty_inner(part)) is not None:
            pointer, part = (*pointer, *inner[0]), inner[1]
        for key in part:
            if key not in _DEFINITIONS and self._is_valid({k: v for k, v in part.items() if k != key}):
                return (*pointer, key), part[key]
        return pointer, part

    def _faulty_inner(self, part: dict[str, Any]) -> tuple[Pointer, dict[str, Any]] | None:
        return next((inner for inner in _inner_schemas(part) if not self._is_valid(inner[1])), None)

    def _is_valid(self, part: dict[str, Any]) -> bool:
        self._left -= 1
        return self._left < 0 or self._compiles(json.dumps({**self._definitions, **part}))


def _inner_schemas(part: dict[str, Any]) -> Iterator[tuple[Pointer, dict[str, Any]]]:
    for key, value in part.items():
        inner: Iterator[tuple[Pointer, Any]] = iter(())
        if key in _BY_NAME and isinstance(value, dict):
            inner = (((key, name), entry) for name, entry in value.items())
        elif key in _LISTS and isinstance(value, list):
            inner = (((key, index), entry) for index, entry in enumerate(value))
        elif key in _ONE:
            inner = iter([((key,), value)])
        yield from ((pointer, entry) for pointer, entry in inner if isinstance(entry, dict))
