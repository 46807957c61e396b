"""Reads the API key of a request: each API has a header for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final


@dataclass(frozen=True, slots=True)
class KeyHeader:
    """The header in which the requests of an API carry their key."""

    name: str
    scheme: str = ""
    """The authentication scheme that precedes the key, such as `Bearer`; empty for a header that is the key alone."""

    def read(self, headers: Mapping[str, str]) -> Credential:
        """Return what a request carries in this header. The names of `headers` are in lower case."""
        value = headers.get(self.name.lower(), "")
        if self.scheme:
            scheme, _, value = value.partition(" ")
            value = value if scheme.lower() == self.scheme.lower() else ""
        return Credential(value.strip(" \t"), self)

    @property
    def example(self) -> str:
        """The header as messages show it."""
        return f"{self.name}: {self.scheme} KEY" if self.scheme else f"{self.name}: KEY"

    @property
    def challenge(self) -> dict[str, str]:
        """The header `WWW-Authenticate` of a 401. Without a scheme there is none to ask for."""
        return {"WWW-Authenticate": self.scheme} if self.scheme else {}


@dataclass(frozen=True, slots=True)
class Credential:
    """The API key that a request carries, and the header in which its API expects it."""

    secret: str = field(repr=False)
    """Empty if the request carries no key."""
    header: KeyHeader


BEARER: Final = KeyHeader("Authorization", "Bearer")
"""The header of OpenAI's API, and of all endpoints that belong to no dialect."""
AZURE: Final = KeyHeader("api-key")
"""The header that OpenAI's clients for Azure send instead."""


def read_openai(headers: Mapping[str, str]) -> Credential:
    """Return the key of a request in OpenAI's format. The names of `headers` are in lower case."""
    is_of_azure = BEARER.name.lower() not in headers and AZURE.name in headers
    return (AZURE if is_of_azure else BEARER).read(headers)
