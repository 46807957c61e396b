"""Follows JSON text letter by letter, and knows at each letter whether it can still become valid (RFC 8259)."""

from __future__ import annotations

from typing import Final

_SPACE: Final = frozenset(" \t\n\r")
_DIGITS: Final = frozenset("0123456789")
_HEX: Final = frozenset("0123456789abcdefABCDEF")
_LITERALS: Final = {"t": "rue", "f": "alse", "n": "ull"}
# Where a number may go on, and where it may end.
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
    """One JSON object. `feed` takes letters until it is complete."""

    def __init__(self) -> None:
        """Expects the opening brace."""
        self.complete = False
        self._stack: list[str] = []
        self._state = "begin"
        self._rest = ""

    def feed(self, letter: str) -> bool:
        """Take one letter; False when no valid object can begin like this. Not to be called once complete."""
        while True:
            again = self._step(letter)
            if again is not None:
                return again

    def _step(self, letter: str) -> bool | None:
        """True or False as `feed`; None when the letter belongs to what follows and is to be looked at again."""
        state = self._state
        if state == "string":
            return self._string(letter)
        if state in ("escape", "hex"):
            return self._escape(letter)
        if state == "literal":
            fits = letter == self._rest[0]
            self._rest = self._rest[1:]
            if not self._rest:
                self._state = "after"
            return fits
        if state in _NUMBER:
            return self._number(letter)
        if letter in _SPACE:
            return True
        return self._structure(letter)

    def _structure(self, letter: str) -> bool:
        match self._state, letter:
            case "begin", "{":
                return self._open(letter)
            case "colon", ":":
                self._state = "value"
            case "key" | "first key", '"':
                self._state, self._rest = "string", "key"
            case "after", ",":
                self._state = "key" if self._stack[-1] == "{" else "value"
            case ("after" | "first key", "}") | ("after" | "first value", "]"):
                return (self._stack[-1] == "{") == (letter == "}") and self._close()
            case "value" | "first value", _:
                return self._value(letter)
            case _:
                return False
        return True

    def _value(self, letter: str) -> bool:
        if letter in "{[":
            return self._open(letter)
        if letter == '"':
            self._state, self._rest = "string", "value"
        elif letter in _LITERALS:
            self._state, self._rest = "literal", _LITERALS[letter]
        elif letter == "-":
            self._state = "-"
        elif letter in _DIGITS:
            self._state = "zero" if letter == "0" else "integer"
        else:
            return False
        return True

    def _open(self, letter: str) -> bool:
        self._stack.append(letter)
        self._state = "first key" if letter == "{" else "first value"
        return True

    def _close(self) -> bool:
        self._stack.pop()
        self._state = "after"
        self.complete = not self._stack
        return True

    def _string(self, letter: str) -> bool:
        if letter == '"':
            self._state = "colon" if self._rest == "key" else "after"
        elif letter == "\\":
            self._state = "escape"
        return letter >= " "

    def _escape(self, letter: str) -> bool:
        kind, _, digits = self._rest.partition(":")
        if self._state == "hex":
            digits += letter
            self._rest = f"{kind}:{digits}" if len(digits) < 4 else kind
            self._state = "hex" if len(digits) < 4 else "string"
            return letter in _HEX
        self._state = "hex" if letter == "u" else "string"
        return letter in '"\\/bfnrtu'

    def _number(self, letter: str) -> bool | None:
        for letters, following in _NUMBER[self._state].items():
            if letter in _expanded(letters):
                self._state = following
                return True
        if self._state in _NUMBER_ENDS:
            self._state = "after"
            return None
        return False


def _expanded(letters: str) -> str:
    return {"0-9": "0123456789", "1-9": "123456789"}.get(letters, letters)
