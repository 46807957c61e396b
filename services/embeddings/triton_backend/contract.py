"""What a request to the embedding model may hold, and what an engine owes it.

A request is a batch of rows, and a row is one text, either as `text` (UTF-8, with the model's prefix) or as `token_ids`
(int32, little-endian, packed into one byte string, with the model's special tokens): which of the two, the engine
says. The answer is `embedding`, float32 of shape [rows, dimensions]. Triton puts the rows of several requests into one
batch.

A request whose only input is `params`, `{"describe": true}`, is answered with `description`: JSON with the fields of
`Description`.

A request that is refused or fails ends with a RequestError, whose reason is INVALID_ARGUMENT or ENGINE_FAILED.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from numpy import float32
from numpy.typing import NDArray

Takes = Literal["text", "token_ids"]


@dataclass(frozen=True, slots=True)
class Description:
    """What an engine has loaded."""

    engine: str
    version: str
    takes: Takes
    dimensions: int
    """Length of its vectors."""
    max_input_tokens: int
    """Most tokens of one text, prefix and special tokens included."""
    normalized: bool
    """Whether its vectors have length one."""


class Engine(Protocol):
    """Turns texts into vectors. Called from one thread."""

    description: Description

    def embed(self, rows: Sequence[Any]) -> NDArray[float32]:
        """The vectors of `rows` (strings, or lists of token ids, as it says that it takes), one per row, in order.

        Raises RequestError for a row that it does not take.
        """
        ...
