"""Compares the CPU engine with the server inside xllamacpp."""

from typing import Final

BATCH_TOKENS: Final = 512
"""The most tokens that the server decodes at once; our engine's own limit is the same."""
