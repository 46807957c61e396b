"""The headers of a request, decoded only when they are read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final, TypeVar, overload

T = TypeVar("T")


class RequestHeaders(Mapping[str, str]):
    """The headers by their names in lower case. The first of several with the same name counts."""

    def __init__(self, raw: Sequence[tuple[bytes, bytes]]) -> None:
        """Keep the headers as ASGI has them."""
        self.raw: Final = raw
        self._values: Final = dict(reversed(raw))

    def __getitem__(self, name: str) -> str:
        """Return the value of a header."""
        return self._values[name.encode("latin-1")].decode("latin-1")

    @overload
    def get(self, name: str, /) -> str | None: ...

    @overload
    def get(self, name: str, /, default: str | T) -> str | T: ...

    def get(self, name: str, /, default: object = None) -> object:
        """Return the value of a header, or `default` if there is none."""
        value = self._values.get(name.encode("latin-1"))
        return default if value is None else value.decode("latin-1")

    def __contains__(self, name: object) -> bool:
        """Return whether there is a header with this name."""
        return isinstance(name, str) and name.encode("latin-1") in self._values

    def __iter__(self) -> Iterator[str]:
        """Yield the names."""
        return (name.decode("latin-1") for name in self._values)

    def __len__(self) -> int:
        """Return the number of names."""
        return len(self._values)
