"""Unifies the spelling of Persian: Arabic ي, ك and digits become Persian. All else stays, U+200C included."""

from __future__ import annotations

from typing import Final

_PERSIAN: Final = str.maketrans("يك٠١٢٣٤٥٦٧٨٩", "یک۰۱۲۳۴۵۶۷۸۹")


def normalize(text: str) -> str:
    """Return `text` in Persian letters and digits. Its length does not change."""
    return text.translate(_PERSIAN)
