"""The callbacks for the end of a request, however it ends."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from types import TracebackType
from typing import Final


class Cleanup:
    """Callbacks that the end of the context calls, the last one first.

    contextlib's ExitStack does the same with several times as many calls, because it also takes other contexts.
    """

    def __init__(self) -> None:
        """Begin without callbacks."""
        self._calls: Final[list[Callable[[], object]]] = []

    def callback(self, call: Callable[..., object], *arguments: object) -> None:
        """Have `call` called with `arguments`."""
        self._calls.append(partial(call, *arguments) if arguments else call)

    def __enter__(self) -> Cleanup:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Call all callbacks, also if one of them raises an exception."""
        try:
            while self._calls:
                self._calls.pop()()
        finally:
            if self._calls:
                self.__exit__(None, None, None)
