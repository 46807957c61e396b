"""Reads the key from the header `Authorization`."""

from __future__ import annotations

from collections.abc import Mapping


def bearer_key(headers: Mapping[str, str]) -> str | None:
    """Return the key of `Authorization: Bearer KEY`, or None without such a header."""
    scheme, _, key = headers.get("authorization", "").partition(" ")
    return (key.strip(" \t") or None) if scheme.lower() == "bearer" else None
