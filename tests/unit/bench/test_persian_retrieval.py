"""The texts of the measurement of Persian search, and their spellings."""

from __future__ import annotations

from bench.persian_retrieval.__main__ import read_texts, unified
from bench.persian_retrieval.spellings import SPELLINGS


def test_every_question_has_one_passage_among_many_other_sentences() -> None:
    texts = read_texts()
    assert len(set(texts.questions)) == len(set(texts.passages)) == 200
    others = set(texts.distractors)
    assert len(others) > 1000
    assert not others & set(texts.passages)


def test_the_unified_spelling_restores_letters_and_digits() -> None:
    texts = read_texts()
    for name in ("Arabic ي and ك", "Arabic digits", "U+200C as ¬", "three tatweels", "four vowel signs"):
        spelling = SPELLINGS[name]
        for text in texts.questions:
            assert unified(spelling(text)) == unified(text), name
