"""Scans JSON text character by character, and detects the first one at which it is invalid (RFC 8259)."""

from __future__ import annotations

from typing import Final

_SPACE: Final = frozenset(" \t\n\r")
_DIGITS: Final = frozenset("0123456789")
_HEX: Final = frozenset("0123456789abcdefABCDEF")
_LITERALS: Final = {"t": "rue", "f": "alse", "n": "ull"}
# The state machine of a number, and the states in which a number may end.
_NUMBER: Final[dict[str, dict[str, str]]] = {
    "-": {"0": "zero", "1-9": "integer"},
    "zero": {".": "point", "eE": "exponent"},
    "integer": {"0-9": "integer", ".": "point", "eE": "exponent"},
    "point": {"0-9": "fraction"},
    "fraction": {"0-9": "fraction", "eE": "exponent"},
    "exponent": {"+-": "sign", "0-9": "power"},
    "sign": {"0-9": "power"},
    "power": {"0-9": "power"},
}
_NUMBER_ENDS: Final = frozenset({"zero", "integer", "fraction", "power"})


class JsonScanner:
    """Scans one JSON object, until it is `complete`."""

    def __init__(self) -> None:
        """Start before the opening brace."""
        self.complete = False
        self._stack: list[str] = []
        self._state = "begin"
        self._rest = ""

    def feed(self, character: str) -> bool:
        """Read one character, and return whether the text may still become a valid object.

        It must not be called once the object is complete.
        """
        while True:
            is_valid = self._step(character)
            if is_valid is not None:
                return is_valid

    def _step(self, character: str) -> bool | None:
        """Return True or False as `feed`, or None if the character ends a number and must be read again."""
        state = self._state
        if state == "string":
            return self._string(character)
        if state in ("escape", "hex"):
            return self._escape(character)
        if state == "literal":
            fits = character == self._rest[0]
            self._rest = self._rest[1:]
            if not self._rest:
                self._state = "after"
            return fits
        if state in _NUMBER:
            return self._number(character)
        if character in _SPACE:
            return True
        return self._structure(character)

    def _structure(self, character: str) -> bool:
        match self._state, character:
            case "begin", "{":
                return self._open(character)
            case "colon", ":":
                self._state = "value"
            case "key" | "first key", '"':
                self._state, self._rest = "string", "key"
            case "after", ",":
                self._state = "key" if self._stack[-1] == "{" else "value"
            case ("after" | "first key", "}") | ("after" | "first value", "]"):
                return (self._stack[-1] == "{") == (character == "}") and self._close()
            case "value" | "first value", _:
                return self._value(character)
            case _:
                return False
        return True

    def _value(self, character: str) -> bool:
        if character in "{[":
            return self._open(character)
        if character == '"':
            self._state, self._rest = "string", "value"
        elif character in _LITERALS:
            self._state, self._rest = "literal", _LITERALS[character]
        elif character == "-":
            self._state = "-"
        elif character in _DIGITS:
            self._state = "zero" if character == "0" else "integer"
        else:
            return False
        return True

    def _open(self, character: str) -> bool:
        self._stack.append(character)
        self._state = "first key" if character == "{" else "first value"
        return True

    def _close(self) -> bool:
        self._stack.pop()
        self._state = "after"
        self.complete = not self._stack
        return True

    def _string(self, character: str) -> bool:
        if character == '"':
            self._state = "colon" if self._rest == "key" else "after"
        elif character == "\\":
            self._state = "escape"
        return character >= " "

    def _escape(self, character: str) -> bool:
        kind, _, digits = self._rest.partition(":")
        if self._state == "hex":
            digits += character
            self._rest = f"{kind}:{digits}" if len(digits) < 4 else kind
            self._state = "hex" if len(digits) < 4 else "string"
            return character in _HEX
        self._state = "hex" if character == "u" else "string"
        return character in '"\\/bfnrtu'

    def _number(self, character: str) -> bool | None:
        for characters, following in _NUMBER[self._state].items():
            if character in _expanded(characters):
                self._state = following
                return True
        if self._state in _NUMBER_ENDS:
            self._state = "after"
            return None
        return False


def _expanded(characters: str) -> str:
    return {"0-9": "0123456789", "1-9": "123456789"}.get(characters, characters)
