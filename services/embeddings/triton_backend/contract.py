"""The contract of the embedding model in Triton: its requests and responses, and the interface of an engine.

A request is a batch of rows, and a row is one text, either as `text` (UTF-8, with the model's prefix) or as `token_ids`
(int32, little-endian, packed into one byte string, with the model's special tokens). The engine's description says
which of the two it accepts. The response is `embedding`, float32 of shape [rows, dimensions]. Triton puts the rows of
several requests into one batch.

A request whose only input is `params`, `{"describe": true}`, gets the response `description`: JSON with the fields of
`Description`.

A request that is rejected or fails ends with a RequestError, whose reason is INVALID_ARGUMENT or ENGINE_FAILED.
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
    """The description of an engine and of the model that it has loaded."""

    engine: str
    version: str
    takes: Takes
    dimensions: int
    """The length of the vectors."""
    max_input_tokens: int
    """The most tokens of one text, prefix and special tokens included."""
    normalized: bool
    """Whether the vectors have the norm 1."""


class Engine(Protocol):
    """Embeds texts. Methods are called from one thread."""

    @property
    def description(self) -> Description:
        """The engine's description. Raises RequestError once the engine can embed nothing any more."""
        ...

    def embed(self, rows: Sequence[Any]) -> NDArray[float32]:
        """Return the vectors of `rows`, one per row, in order.

        A row is a string or a list of token ids, as `description.takes` says. Raises RequestError for an invalid row.
        """
        ...
