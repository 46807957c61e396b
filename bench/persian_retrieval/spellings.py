"""Other spellings of clean Persian, as people and old documents write it."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final

Spelling = Callable[[str], str]
_ARABIC_LETTERS: Final = str.maketrans("یک", "يك")
_ARABIC_DIGITS: Final = str.maketrans("۰۱۲۳۴۵۶۷۸۹", "٠١٢٣٤٥٦٧٨٩")
_LATIN_DIGITS: Final = str.maketrans("۰۱۲۳۴۵۶۷۸۹", "0123456789")
_JOINING: Final = "بپتثجچحخسشصضطظعغفقکگلمنهی"
"""Letters that join the next one, so that a tatweel may stand behind them."""
_VOWELS: Final = "\u064e\u064f\u0650"


def with_tatweel(text: str) -> str:
    """Return a text with three tatweels behind letters that allow them."""
    places = [at for at, letter in enumerate(text[:-1]) if letter in _JOINING and text[at + 1].isalpha()]
    return _inserted(text, places, "\u0640", 3)


def with_vowels(text: str) -> str:
    """Return a text with four vowel signs."""
    places = [at for at, letter in enumerate(text) if letter.isalpha()]
    return _inserted(text, places, _VOWELS, 4)


def _inserted(text: str, places: list[int], signs: str, most: int) -> str:
    chance = random.Random(text)  # noqa: S311  # the same text is always changed in the same way
    for at in sorted(chance.sample(places, min(most, len(places))), reverse=True):
        text = text[: at + 1] + chance.choice(signs) + text[at + 1 :]
    return text


SPELLINGS: Final[dict[str, Spelling]] = {
    "Arabic ي and ك": lambda text: text.translate(_ARABIC_LETTERS),
    "Arabic digits": lambda text: text.translate(_ARABIC_DIGITS),
    "Latin digits": lambda text: text.translate(_LATIN_DIGITS),
    "U+200C as a space": lambda text: text.replace("\u200c", " "),
    "U+200C left out": lambda text: text.replace("\u200c", ""),
    "U+200C as ¬": lambda text: text.replace("\u200c", "\u00ac"),
    "three tatweels": with_tatweel,
    "four vowel signs": with_vowels,
}
