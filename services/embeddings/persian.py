"""Unifies the spelling of Persian, and recognises Persian text.

An embedding model takes spelling for meaning: a question typed on an Arabic keyboard is nearer to passages that were
typed on one than to those that answer it.
"""

from __future__ import annotations

import re
from typing import Final

VERSION: Final = "persian-1"
"""The version of `normalize`. Vectors of different versions must not be mixed in one index."""

_LETTERS: Final = dict(zip("يىك٠١٢٣٤٥٦٧٨٩", "ییک۰۱۲۳۴۵۶۷۸۹", strict=True))
_HEH_WITH_HAMZA: Final = ("\u06c0", "\u0647\u0654")
"""One code point, and the two that everything else is written with."""
_UNSPOKEN: Final = "\u0640\u064b\u064c\u064d\u064e\u064f\u0650\u0651\u0652\u0670"
"""Tatweel, which only lengthens a word, and vowel signs, which Persian is written without."""
_OLD_SIGN: Final = "\u00ac"
_OLD_JOINER: Final = re.compile("(?<=[\u0620-\u06d3])\u00ac(?=[\u0620-\u06d3])")
"""The sign that old Persian keyboards gave for U+200C."""

_ONLY_PERSIAN: Final = re.compile("[پچژگکی۰-۹\u200c]")
_ONLY_ARABIC: Final = re.compile("[ةأإ]|\\bال(?=\\w{3})")
_WORD: Final = re.compile(r"\w+")
_PERSIAN_WORDS: Final = frozenset(
    _WORD.findall(
        "از است اگر آن آنها او این با باید بر برای بود به بین پس تا چه چرا چطور چگونه چند چیست خود دارد دارند در را رو "
        "شد شده شود شما کدام کجا کجاست کرد کرده کند کنم کنید که ما من می نمی نیست ها های هایی هر هم همه همین یا یک"
    )
)
_ARABIC_WORDS: Final = frozenset(
    _WORD.findall(
        "في من إلى الى على عن هذا هذه ذلك التي الذي الذين أن ان لا كيف هل كان كانت بعد قبل عند مع هو هي لم لن قد ليس او"
    )
)
_SAMPLE: Final = 2_000
"""The characters of a text that are looked at."""


def is_persian(text: str) -> bool:
    """Return whether a text is Persian rather than Arabic or in another script.

    A text that could be both, such as one word without a letter of only one language, is taken for Persian.
    """
    sample = text[:_SAMPLE]
    words = _WORD.findall(sample)
    if not any("\u0620" <= character <= "\u06d3" for character in sample):
        return False
    persian = len(_ONLY_PERSIAN.findall(sample)) + 2 * sum(
        word in _PERSIAN_WORDS for word in _WORD.findall(normalize(sample))
    )
    arabic = 2 * len(_ONLY_ARABIC.findall(sample)) + 2 * sum(word in _ARABIC_WORDS for word in words)
    return persian >= arabic


def normalize(text: str) -> str:
    """Return `text` in Persian letters and digits, without tatweel and vowel signs, and with U+200C for the sign ¬."""
    # Replacing one character after another takes a fraction of the time of a table or a pattern, in which a long text
    # would keep other threads waiting.
    for sign in _UNSPOKEN:
        text = text.replace(sign, "")
    for letter, persian in _LETTERS.items():
        text = text.replace(letter, persian)
    if _OLD_SIGN in text:
        text = _OLD_JOINER.sub("\u200c", text)
    return text.replace(*_HEH_WITH_HAMZA)
