"""Converts the text of a call's parameter to JSON, by the parameter's JSON Schema.

MiniMax's models write strings without quotes and all other values as JSON, so that only the schema tells whether `5` is
a number or a string. Schemas express types in many ways: pydantic's `str | None` is an `anyOf`, and its enums are
behind a `$ref`. Callers write the schemas: docs/adr/0016 says why no JSON Schema library reads them here.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import unquote

MAX_DEPTH: Final = 64
"""The deepest nesting of alternatives and references that is followed."""
_SPACE: Final = " \t\r\n"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


_TYPES: Final[dict[str, Callable[[Any], bool]]] = {
    "string": lambda value: isinstance(value, str),
    "null": lambda value: value is None,
    "boolean": lambda value: isinstance(value, bool),
    "integer": lambda value: _is_number(value) and value == int(value),
    "number": _is_number,
    "object": lambda value: isinstance(value, dict),
    "array": lambda value: isinstance(value, list),
}
# One value of each type but string.
_OTHERS: Final[tuple[Any, ...]] = (None, True, 0, 0.5, {}, [])


class ParameterSchema:
    """The schema of one parameter of a function."""

    def __init__(self, function: Any, name: str) -> None:
        """Take the schema of the parameter `name` from `function`, the JSON Schema of all parameters of a function."""
        self._function: Final = function
        properties = function.get("properties") if isinstance(function, dict) else None
        self._schema: Final[Any] = properties.get(name, {}) if isinstance(properties, dict) else {}

    @property
    def is_text(self) -> bool:
        """Whether a long text can only be a string: the schema allows strings, and no other type but null."""
        return self._accepts("") and not any(self._accepts(value) for value in _OTHERS if value is not None)

    def to_json(self, text: str) -> str:
        """Return the value of `text` as JSON text.

        Text is read as JSON if the schema allows the value, such as `null` where null is allowed. It is a string if the
        schema allows a string but not the value. Text that is not JSON, or JSON that not every parser accepts (`NaN`, a
        number beyond a float's range, too deeply nested lists), is a string whatever the schema says.
        """
        literal = json.dumps(text, ensure_ascii=False)
        try:
            value = json.loads(text, parse_constant=_reject, parse_float=_finite)
            is_json = self._accepts(value) and not (isinstance(value, str) and self._accepts(text))
        except (ValueError, RecursionError):
            return literal
        # The text itself: parsing and serializing a number may lose digits.
        return text.strip(_SPACE) if is_json or not self._allows_strings() else literal

    def _allows_strings(self) -> bool:
        return _Acceptance(self._function, any_value=True).of("", self._schema)

    def _accepts(self, value: Any) -> bool:
        return _Acceptance(self._function).of(value, self._schema)


class _Acceptance:
    """Decides whether a schema allows a value by its types, constants and enums; other keywords are ignored.

    Each subschema is evaluated once, however often references lead to it. One that refers to itself adds nothing, and
    one that is nested too deeply allows everything.
    """

    def __init__(self, root: Any, *, any_value: bool = False) -> None:
        """Resolve references in `root`. With `any_value`, only the types of constants and enums count."""
        self._root: Final = root
        self._any_value: Final = any_value
        self._known: Final[dict[int, bool]] = {}
        self._depth = 0

    def of(self, value: Any, schema: Any) -> bool:
        """Return whether `schema` allows `value`, which must be the same in every call."""
        if not isinstance(schema, dict) or self._depth > MAX_DEPTH:
            return schema is not False
        if id(schema) not in self._known:
            self._known[id(schema)] = False
            self._depth += 1
            self._known[id(schema)] = self._decide(value, schema)
            self._depth -= 1
        return self._known[id(schema)]

    def _decide(self, value: Any, schema: dict[str, Any]) -> bool:
        if value is None and schema.get("nullable") is True:
            return True
        if "type" in schema and not self._has_type(value, schema["type"]):
            return False
        listed = [schema["const"]] if "const" in schema else schema.get("enum")
        if isinstance(listed, list) and not any(self._equals(value, one) for one in listed):
            return False
        if "$ref" in schema and not self.of(value, self._referred(schema["$ref"])):
            return False
        for keyword in ("anyOf", "oneOf"):
            branches = schema.get(keyword)
            if isinstance(branches, list) and branches and not any(self.of(value, branch) for branch in branches):
                return False
        branches = schema.get("allOf")
        return not isinstance(branches, list) or all(self.of(value, branch) for branch in branches)

    def _has_type(self, value: Any, types: Any) -> bool:
        known = [_TYPES[one] for one in (types if isinstance(types, list) else [types]) if _is_type(one)]
        return not known or any(fits(value) for fits in known)

    def _equals(self, value: Any, listed: Any) -> bool:
        if self._any_value:
            return type(value) is type(listed)
        # In Python, True equals 1.
        return isinstance(value, bool) == isinstance(listed, bool) and bool(value == listed)

    def _referred(self, reference: Any) -> Any:
        """Return the target of a reference within the schema, or a schema that allows everything if it has none."""
        if not isinstance(reference, str) or not reference.startswith("#"):
            return {}
        target = self._root
        for step in reference[1:].split("/")[1:]:
            key = unquote(step).replace("~1", "/").replace("~0", "~")
            if isinstance(target, list) and key.isdecimal() and int(key) < len(target):
                target = target[int(key)]
            elif isinstance(target, dict) and key in target:
                target = target[key]
            else:
                return {}
        return target


def _is_type(name: Any) -> bool:
    return isinstance(name, str) and name in _TYPES


def _reject(constant: str) -> Any:
    raise ValueError(constant)


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError(digits)
    return number
