"""A message for a caller: an id and parameters. Its text is chosen where the caller's language is known."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from services.runtime.messages.catalogue import ENGLISH, catalogue, render

Parameter = str | int | float
FIELD: Final = "field"
"""The parameter with the path of the field that a message is about. Others with paths have names that end in `_field`.
"""
VERBATIM: Final = "verbatim"
"""The id of a message that has only a text, in English, because none of the catalogues has it."""


class Message:
    """A message to a caller: what was wrong, with which values, and what to do about it.

    Attributes:
        id: the key of its text in the catalogues.
        parameters: what its text inserts. Paths of fields are a worker's own, until `with_fields` replaces them by
            those of the caller's API.
    """

    __slots__ = ("id", "parameters")

    def __init__(self, message_id: str, /, **parameters: Parameter) -> None:
        """`message_id` is a literal, so that a test can compare all uses with the catalogues."""
        self.id: Final = message_id
        self.parameters: Final[Mapping[str, Parameter]] = parameters

    @classmethod
    def verbatim(cls, text: str) -> Message:
        """Return a message that is `text` in every language: it comes from a library or from an older program."""
        return cls(VERBATIM, text=text)

    @classmethod
    def received(cls, message_id: str, parameters: Mapping[str, str], *, text: str) -> Message:
        """Return a message that another program has sent, with its English `text`.

        It becomes `text` alone if this program's catalogue does not have it, or needs other parameters: then the other
        program is older or newer.
        """
        entry = catalogue(ENGLISH).get(message_id)
        if entry is None or not entry.parameters <= parameters.keys():
            return cls(VERBATIM, **{**parameters, "text": text})
        return cls(message_id, **parameters)

    @property
    def is_translated(self) -> bool:
        """Whether the catalogues have it."""
        return self.id != VERBATIM

    @property
    def field(self) -> str | None:
        """The path of the field that the message is about, if it is about one."""
        field = self.parameters.get(FIELD)
        return None if field is None else str(field)

    def with_fields(self, name: Callable[[str], str]) -> Message:
        """Return the message with `name(path)` in place of each path of a field, where that is not empty."""
        renamed = {
            key: name(str(value)) or value if _is_field(key) else value for key, value in self.parameters.items()
        }
        return Message(self.id, **renamed)

    def texts(self) -> dict[str, str]:
        """Return the parameters as text."""
        return {name: _written(value) for name, value in self.parameters.items()}

    def text(self, language: str = ENGLISH) -> str:
        """Return the message in one of the catalogues' languages."""
        if not self.is_translated:
            return str(self.parameters["text"])
        return render(self.id, self.texts(), language)

    def __str__(self) -> str:
        """Return the message in English."""
        return self.text()

    def __repr__(self) -> str:
        """Return the call that makes the message."""
        parameters = (f"{name}={value!r}" for name, value in self.parameters.items())
        return f"Message({', '.join([repr(self.id), *parameters])})"

    def __eq__(self, other: object) -> bool:
        """Return whether both are the same message with the same parameters, as text."""
        return isinstance(other, Message) and (self.id, self.texts()) == (other.id, other.texts())

    __hash__ = None  # type: ignore[assignment]  # parameters are a dictionary


def _is_field(name: str) -> bool:
    return name == FIELD or name.endswith(f"_{FIELD}")


def _written(value: Parameter) -> str:
    return f"{value:.15g}" if isinstance(value, float) else str(value)
