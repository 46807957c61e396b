"""Typed reading of a JSON object that a client sent. Every refusal names the field by its path, and what it holds."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Final, TypeVar

import orjson

from services.gateway.errors import ApiError, bad_request
from services.gateway.quoting import shown

T = TypeVar("T")
_NAMES: Final = {
    dict: "an object",
    list: "a list",
    str: "a string",
    bool: "true or false",
    int: "an integer",
    float: "a number",
    type(None): "null",
}
_NOTHING: Final[tuple[Any, ...]] = (None, [], {})


def wrong_type(path: str, expected: str, value: object) -> ApiError:
    """The refusal of a value of another type."""
    return bad_request(
        path, f"{path} must be {expected}, got {_NAMES.get(type(value), 'something else')}: {shown(value)}"
    )


class Fields:
    """A JSON object. A field that is null counts as absent; a getter returns None for an absent field."""

    def __init__(self, value: object, path: str = "") -> None:
        """Raises ApiError when `value` is no object."""
        if not isinstance(value, dict):
            raise wrong_type(path or "the body", "an object", value)
        self._values: Final[dict[str, Any]] = value
        self._path: Final = path
        self._read: Final[set[str]] = set()
        self._inner: Final[dict[str, Fields]] = {}
        self._unread_in_lists: Final[list[str]] = []

    def path(self, name: str) -> str:
        """The path of a field."""
        return f"{self._path}.{name}" if self._path else name

    def get(self, name: str) -> Any:
        """The field as it is."""
        self._read.add(name)
        return self._values.get(name)

    def granted(self, name: str, *values: Any) -> None:
        """Take note of a field that asks for what is done anyway: one of `values`. With another one it counts as unread."""
        if any(self._values.get(name) == value for value in values):
            self._read.add(name)

    def overruled(self, name: str) -> None:
        """Take note of a field that was read and has no influence, because another one says something else."""
        self._read.discard(name)

    def unread(self) -> list[str]:
        """Names of fields that nobody asked for, or that were overruled. Null, [] and {} ask for nothing."""
        if self._values.keys() <= self._read:
            return []
        return sorted(name for name, value in self._values.items() if name not in self._read and value not in _NOTHING)

    def unread_paths(self) -> list[str]:
        """Paths of such fields here and in every object that was read from here."""
        inner = (path for fields in self._inner.values() for path in fields.unread_paths())
        return [*map(self.path, self.unread()), *inner, *self._unread_in_lists]

    def string(self, name: str) -> str | None:
        """A string."""
        return self._typed(name, str, "a string")

    def required_string(self, name: str) -> str:
        """A string that must be there."""
        value = self.string(name)
        if value is None:
            raise bad_request(self.path(name), f"{self.path(name)} is missing; it must be a string")
        return value

    def boolean(self, name: str) -> bool | None:
        """True or false."""
        return self._typed(name, bool, "true or false")

    def integer(self, name: str, *, least: int = 0, most: int = 2**31 - 1) -> int | None:
        """An integer from `least` to `most`."""
        value = self.get(name)
        if value is None:
            return None
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool):
            raise wrong_type(self.path(name), "an integer", value)
        if not least <= value <= most:
            raise bad_request(self.path(name), f"{self.path(name)} is {value}; it must be {least} to {most}")
        return value

    def number(self, name: str) -> float | None:
        """A finite number."""
        value = self.get(name)
        if value is None:
            return None
        if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
            raise wrong_type(self.path(name), "a number", value)
        return float(value)

    def object(self, name: str) -> Fields | None:
        """An object."""
        value = self.get(name)
        if value is None:
            return None
        if name not in self._inner:
            # What was read of it is known, however often it is asked for.
            self._inner[name] = Fields(value, self.path(name))
        return self._inner[name]

    def array(self, name: str) -> list[Any] | None:
        """A list."""
        return self._typed(name, list, "a list")

    def objects(self, name: str) -> Iterator[Fields]:
        """The objects of a list. Each is read before the next one is taken: there may be very many."""
        for index, value in enumerate(self.array(name) or ()):
            fields = Fields(value, f"{self.path(name)}[{index}]")
            yield fields
            self._unread_in_lists.extend(fields.unread_paths())

    def strings(self, name: str) -> list[str] | None:
        """The strings of a list."""
        values = self.array(name)
        for index, value in enumerate(values or ()):
            if not isinstance(value, str):
                raise wrong_type(f"{self.path(name)}[{index}]", "a string", value)
        return values

    def one_of(self, name: str, *allowed: str) -> str | None:
        """One of some strings."""
        value = self.string(name)
        if value is not None and value not in allowed:
            choices = ", ".join(allowed)
            raise bad_request(self.path(name), f"{self.path(name)} is {shown(value)}; it must be one of {choices}")
        return value

    def _typed(self, name: str, kind: type[T], expected: str) -> T | None:
        value = self.get(name)
        if value is None or isinstance(value, kind):
            return value
        raise wrong_type(self.path(name), expected, value)


def json_text(path: str, value: Any) -> str:
    """A field's value as JSON text. Raises ApiError for one that is nested too deeply for the encoder."""
    try:
        return orjson.dumps(value).decode()
    except orjson.JSONEncodeError:
        raise bad_request(path, f"{path} is nested too deeply; at most 254 levels are allowed") from None
