from __future__ import annotations

import pytest
from hypothesis import given
from tokenizers import Tokenizer

from services.inference.model.detokenizer import Detokenizer
from services.inference.model.tokenizer import ModelTokenizer
from tests.unit.inference.scripted import PIECES, TEXTS


def texts_of(tokenizer: ModelTokenizer, token_ids: list[int], *, skip_special_tokens: bool = True) -> list[str]:
    detokenizer = Detokenizer(tokenizer, skip_special_tokens=skip_special_tokens)
    return [detokenizer.feed(token_id) for token_id in token_ids]


@given(text=TEXTS)
def test_detokenizing_the_ids_of_a_text_gives_the_text(
    tokenizer: ModelTokenizer, reference: Tokenizer, text: str
) -> None:
    token_ids = tokenizer.encode(tokenizer.guard(text))
    texts = texts_of(tokenizer, token_ids)
    assert "".join(texts) == text == reference.decode(token_ids)
    assert sum(segment.count("\ufffd") for segment in texts) == text.count("\ufffd")


@given(text=TEXTS)
def test_with_a_token_per_byte_the_text_arrives_by_characters(bytewise: ModelTokenizer, text: str) -> None:
    texts = texts_of(bytewise, list(text.encode()))
    assert [segment for segment in texts if segment] == list(text)


@pytest.mark.parametrize("text", PIECES)
def test_all_but_the_last_byte_of_a_character_have_no_text(bytewise: ModelTokenizer, text: str) -> None:
    for character in text:
        *first, last = texts_of(bytewise, list(character.encode()))
        assert (first, last) == ([""] * len(first), character)


@given(text=TEXTS)
def test_invalid_utf8_is_replaced_as_by_the_reference(
    bytewise: ModelTokenizer, tokenizer: ModelTokenizer, reference: Tokenizer, text: str
) -> None:
    # The end is complete: another test is about characters that the end truncates.
    damaged = list((text + ".").encode())[1:]
    assert "".join(texts_of(bytewise, damaged)) == bytes(damaged).decode(errors="replace")
    token_ids = tokenizer.encode(tokenizer.guard(text + "."))[1:]
    assert "".join(texts_of(tokenizer, token_ids)) == reference.decode(token_ids)


def test_a_truncated_character_is_left_out(bytewise: ModelTokenizer) -> None:
    assert texts_of(bytewise, list("س".encode())[:1]) == [""]
    assert texts_of(bytewise, list("آ🙂".encode())[:5]) == ["", "آ", "", "", ""]


def test_special_tokens_are_left_out_or_kept(tokenizer: ModelTokenizer) -> None:
    token_ids = tokenizer.encode("<|im_start|>سلام<|im_end|>")
    assert "".join(texts_of(tokenizer, token_ids)) == "سلام"
    assert "".join(texts_of(tokenizer, token_ids, skip_special_tokens=False)) == "<|im_start|>سلام<|im_end|>"


def test_ids_beyond_the_vocabulary_have_no_text(tokenizer: ModelTokenizer) -> None:
    assert texts_of(tokenizer, [tokenizer.vocabulary_size, 2**31 - 1, -1]) == ["", "", ""]
