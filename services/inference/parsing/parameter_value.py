"""What the text of a call's parameter stands for, by the parameter's JSON Schema.

MiniMax's models write strings as they are and everything else as JSON, so that `5` is a number or a text, as the schema
says. Schemas say it in many ways: pydantic's `str | None` is an `anyOf`, its enums are behind a `$ref`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import unquote

MAX_DEPTH: Final = 64
"""So many alternatives and references inside one another are followed."""
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
# One of everything that is no string.
_OTHERS: Final[tuple[Any, ...]] = (None, True, 0, 0.5, {}, [])


class ParameterSchema:
    """The schema of one parameter of a function."""

    def __init__(self, function: Any, name: str) -> None:
        """Of the parameter `name`; `function` is the JSON Schema of all of the function's parameters."""
        self._function: Final = function
        properties = function.get("properties") if isinstance(function, dict) else None
        self._schema: Final[Any] = properties.get(name, {}) if isinstance(properties, dict) else {}

    @property
    def is_text(self) -> bool:
        """Whether a long text can only be a string: nothing else, other than null, is allowed."""
        return self._accepts("") and not any(self._accepts(value) for value in _OTHERS if value is not None)

    def to_json(self, text: str) -> str:
        """The value that `text` stands for, as JSON text.

        JSON that the schema allows is meant as JSON, as `null` is where null is allowed; but where a string is allowed
        and what the JSON says is not, the text is meant as it stands. What is no JSON, or none that every reader
        understands (`NaN`, a number beyond a float's range, lists in lists without end), is a string whatever the
        schema says.
        """
        literal = json.dumps(text, ensure_ascii=False)
        try:
            value = json.loads(text, parse_constant=_reject, parse_float=_finite)
            is_json = self._accepts(value) and not (isinstance(value, str) and self._accepts(text))
        except (ValueError, RecursionError):
            return literal
        # As it was written: what is read and written again may lose digits.
        return text.strip(_SPACE) if is_json or not self._allows_strings() else literal

    def _allows_strings(self) -> bool:
        return _Acceptance(self._function, any_value=True).of("", self._schema)

    def _accepts(self, value: Any) -> bool:
        return _Acceptance(self._function).of(value, self._schema)


class _Acceptance:
    """Whether a schema allows a value, as far as its types and its listed values say; other keywords allow everything.

    Each part of the schema is looked at once, however often references lead to it; one that leads back to itself adds
    nothing, and one too deep inside allows everything.
    """

    def __init__(self, root: Any, *, any_value: bool = False) -> None:
        """`root` is what references begin at. With `any_value`, of listed values only the types count."""
        self._root: Final = root
        self._any_value: Final = any_value
        self._known: Final[dict[int, bool]] = {}
        self._depth = 0

    def of(self, value: Any, schema: Any) -> bool:
        """Whether `schema` allows `value`, which is the same in every call."""
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
        # To Python, True is 1.
        return isinstance(value, bool) == isinstance(listed, bool) and bool(value == listed)

    def _referred(self, reference: Any) -> Any:
        """What a reference within the schema leads to; a schema that allows everything when it leads nowhere."""
        if not isinstance(reference, str) or not reference.startswith("#"):
            return {}
        place = self._root
        for step in reference[1:].split("/")[1:]:
            key = unquote(step).replace("~1", "/").replace("~0", "~")
            if isinstance(place, list) and key.isdecimal() and int(key) < len(place):
                place = place[int(key)]
            elif isinstance(place, dict) and key in place:
                place = place[key]
            else:
                return {}
        return place


def _is_type(name: Any) -> bool:
    return isinstance(name, str) and name in _TYPES


def _reject(constant: str) -> Any:
    raise ValueError(constant)


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError(digits)
    return number
