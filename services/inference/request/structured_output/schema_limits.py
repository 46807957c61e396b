"""Limits on the numbers and sizes in JSON Schemas."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from decimal import Decimal
from typing import Any, Final
from urllib.parse import unquote

from services.inference.request.structured_output.regex_limits import MAX_COUNT, check_regex
from services.runtime.failure import invalid
from services.runtime.messages.message import Message

MAX_STRING: Final = 100_000
"""The largest minLength and maxLength."""
MAX_NUMBER: Final = 2.0**64
"""The largest absolute value of minimum, maximum and their exclusive variants."""
LEAST_NUMBER: Final = 1e-20
"""The smallest absolute value of a bound other than 0."""
MAX_MULTIPLE: Final = 10_000
"""The largest multipleOf without its decimal point and outer zeros, such as 25 for 0.25 or 2500."""
MAX_DECIMALS: Final = 15
"""The most digits of multipleOf before or behind the decimal point."""
MAX_ENTRIES: Final = 4_096
"""The most entries of enum and required."""
MAX_ALTERNATIVES: Final = 512
"""The most entries of anyOf, oneOf, allOf and prefixItems, and of a list in a structural tag."""
MAX_PROPERTIES: Final = 2_048
MAX_REFERENCE_HOPS: Final = 64
_COUNTS: Final = frozenset({"minItems", "maxItems", "minProperties", "maxProperties", "minContains", "maxContains"})
_LENGTHS: Final = frozenset({"minLength", "maxLength"})
_BOUNDS: Final = frozenset({"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"})
_LISTS: Final = {
    **dict.fromkeys(("enum", "required"), MAX_ENTRIES),
    **dict.fromkeys(("anyOf", "oneOf", "allOf", "prefixItems", "items"), MAX_ALTERNATIVES),
}
_DATA: Final = frozenset({"const", "enum", "default", "examples", "required"})
"""Keywords whose values are not schemas."""
_BY_NAME: Final = frozenset(
    {"properties", "patternProperties", "$defs", "definitions", "dependentSchemas", "dependencies"}
)
"""Keywords whose values are schemas by name."""
_LONGEST_INDEX: Final = 10
_PLAIN_KEY: Final = re.compile(r"[A-Za-z_$][A-Za-z0-9_$-]{0,63}")


def check_schema(field: str, schema: Any, *, at: str = "$") -> None:
    """Raise Failure if a number or a size in a JSON Schema exceeds its limit.

    Each part of the schema is read once. `at` is the path of the schema in `field`.
    """
    waiting: list[tuple[str, Any]] = [(at, schema)]
    visited: set[int] = set()
    while waiting:
        path, value = waiting.pop()
        if isinstance(value, list):
            waiting += [(f"{path}[{index}]", entry) for index, entry in enumerate(value)]
        elif isinstance(value, dict) and id(value) not in visited:
            visited.add(id(value))
            # The target of a reference is a schema, also where it is data otherwise, such as a default value.
            waiting += _target(schema, value.get("$ref"), at)
            for key, inner in value.items():
                inner_path = path + path_step(key)
                if key in _BY_NAME and isinstance(inner, dict):
                    check_entries(field, inner_path, len(inner), MAX_PROPERTIES)
                    if key == "patternProperties":
                        for pattern in inner:
                            check_regex(field, pattern, at=inner_path + path_step(pattern))
                    waiting += [(inner_path + path_step(name), entry) for name, entry in inner.items()]
                else:
                    _check_keyword(field, inner_path, key, inner)
                    if key not in _DATA:
                        waiting.append((inner_path, inner))
    _check_references(field, schema, at)


def check_entries(field: str, path: str, value: int, limit: int) -> None:
    """Raise Failure if the object or the list at `path` in `field` has more than `limit` entries."""
    if value > limit:
        raise invalid(Message("schema_too_many_entries", field=field, value=value, at=path, limit=limit))


def path_step(key: str) -> str:
    """Return the step of a JSON path to the entry `key` of an object."""
    return f".{key}" if _PLAIN_KEY.fullmatch(key) else f"[{json.dumps(key[:64], ensure_ascii=False)}]"


def _check_keyword(field: str, path: str, key: str, value: Any) -> None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if key in _COUNTS and is_number:
        _check_count(field, path, value, MAX_COUNT)
    elif key in _LENGTHS and is_number:
        _check_count(field, path, value, MAX_STRING)
    elif key in _BOUNDS and is_number:
        if not (value == 0 or LEAST_NUMBER <= abs(value) <= MAX_NUMBER):
            raise invalid(
                Message(
                    "schema_bound_out_of_range",
                    field=field,
                    value=_rendered(value),
                    at=path,
                    least=LEAST_NUMBER,
                    most=f"{MAX_NUMBER:g}",
                )
            )
    elif key == "multipleOf" and is_number:
        _check_multiple(field, path, value)
    elif key in _LISTS and isinstance(value, list):
        check_entries(field, path, len(value), _LISTS[key])
    elif key == "pattern" and isinstance(value, str):
        check_regex(field, value, at=path)


def _check_count(field: str, path: str, value: float, limit: int) -> None:
    if not 0 <= value <= limit:
        raise invalid(
            Message("schema_number_out_of_range", field=field, value=_rendered(value), at=path, least=0, most=limit)
        )


def _check_multiple(field: str, path: str, value: float) -> None:
    if math.isfinite(value) and 0 < value <= MAX_NUMBER:
        _, digits, exponent = Decimal(str(value)).normalize().as_tuple()
        number = int("".join(map(str, digits)))
        if number <= MAX_MULTIPLE and isinstance(exponent, int) and abs(exponent) <= MAX_DECIMALS:
            return
    raise invalid(
        Message("schema_multiple_out_of_range", field=field, value=_rendered(value), at=path, limit=MAX_MULTIPLE)
    )


def _check_references(field: str, schema: Any, at: str) -> None:
    """Raise Failure for a chain of references to references that is too long."""
    targets = {path: reference for path, reference in _references(schema) if reference.startswith("#")}
    hops: dict[str, int] = {}
    for start in targets:
        pointer = start
        path: list[str] = []
        while pointer in targets and pointer not in hops and len(path) <= MAX_REFERENCE_HOPS:
            path.append(pointer)
            pointer = targets[pointer]
            if pointer in path:
                # A cycle, which engines support.
                hops[pointer] = 0
        count = hops.get(pointer, 0)
        for passed in reversed(path):
            count += 1
            hops[passed] = min(count, hops.get(passed, count))
        if count > MAX_REFERENCE_HOPS:
            raise invalid(
                Message("schema_references_chained", field=field, at=f"{at}{start[1:]}", limit=MAX_REFERENCE_HOPS)
            )


def _target(schema: Any, reference: Any, at: str) -> list[tuple[str, Any]]:
    """Return the path and the value of a reference's target within `schema`; nothing for an external reference."""
    if not isinstance(reference, str) or not reference.startswith("#/"):
        return []
    path, value = at, schema
    for part in reference[2:].split("/"):
        key = unquote(part).replace("~1", "/").replace("~0", "~")
        if isinstance(value, dict) and key in value:
            path, value = path + path_step(key), value[key]
        elif isinstance(value, list) and key.isdecimal() and len(key) < _LONGEST_INDEX and int(key) < len(value):
            path, value = f"{path}[{int(key)}]", value[int(key)]
        else:
            return []
    return [(path, value)]


def _references(schema: Any) -> Iterator[tuple[str, str]]:
    """Yield the pointers of the schemas that are references, each with its reference."""
    waiting: list[tuple[str, Any]] = [("#", schema)]
    while waiting:
        pointer, value = waiting.pop()
        if isinstance(value, list):
            waiting += [(f"{pointer}/{index}", entry) for index, entry in enumerate(value)]
        elif isinstance(value, dict):
            if isinstance(value.get("$ref"), str):
                yield pointer, value["$ref"]
            for key, inner in value.items():
                if isinstance(inner, dict | list):
                    waiting.append((f"{pointer}/{key.replace('~', '~0').replace('/', '~1')}", inner))


def _rendered(value: float) -> str:
    """Return a number as text of limited length."""
    return (
        str(value) if isinstance(value, int) and abs(value) < 10**40 else f"{float(min(max(value, -1e308), 1e308)):g}"
    )
