"""Texts to embed: Persian sentences of about fifteen tokens, all different."""

from __future__ import annotations

import random
from typing import Final

_WORDS: Final = [
    "سلام",
    "دنیا",
    "کتاب",
    "مدرسه",
    "دانشگاه",
    "تهران",
    "ایران",
    "هوا",
    "باران",
    "برنامه",
    "رایانه",
    "مدل",
    "زبان",
    "فارسی",
    "شیرین",
    "خیابان",
    "شهر",
    "دریا",
    "کوه",
    "درخت",
    "پرنده",
    "آسمان",
    "شب",
    "روز",
    "صبح",
    "نان",
    "آب",
    "چای",
    "دوست",
    "خانه",
    "پنجره",
    "قلم",
    "دفتر",
    "نامه",
    "سفر",
    "قطار",
    "بلیت",
    "فردا",
    "دیروز",
]  # a list of forty words would fill a page


def texts(count: int, *, seed: int = 1) -> list[str]:
    """Return `count` texts of eight words."""
    chosen = random.Random(seed)  # noqa: S311  # no secret
    return [" ".join(chosen.choices(_WORDS, k=8)) for _ in range(count)]
