"""The language that a caller prefers, and messages in it."""

from __future__ import annotations

import re
import time

import pytest

from services.gateway.i18n.language import MOST_CHARACTERS, messages, preferred, translated

TEXTS = messages("fa")


@pytest.mark.parametrize(
    ("header", "language"),
    [
        ("", "en"),
        ("fa", "fa"),
        ("fa-IR,fa;q=0.9,en;q=0.8", "fa"),
        ("en-GB,en;q=0.9,fa;q=0.8", "en"),
        ("en;q=0.2, FA;q=0.7", "fa"),
        ("de,fa;q=0.3", "fa"),
        ("fa;q=0", "en"),
        ("fa;q=many", "en"),
        ("*", "en"),
        ("de", "en"),
    ],
)
def test_the_language_that_a_caller_likes_best(header: str, language: str) -> None:
    assert preferred(header) == language


def test_every_text_inserts_what_its_english_message_inserts() -> None:
    for english, persian in TEXTS.items():
        # English says whether one has or several have it; Persian does not need to.
        assert set(places(persian)) == set(places(english)) - {"what", "verb"}, english
        outside = re.sub(r"`[^`]*`|\{\w+\}", "", persian)
        assert set(re.findall("[A-Za-z]+", outside)) <= {"API"}, persian


def places(text: str) -> list[str]:
    return re.findall(r"\{(\w+)\}", text)


@pytest.mark.parametrize(
    "message",
    [
        "Rate limit reached: 5 requests per minute for this key. Try again in 12s.",
        "Rate limit reached: 900 tokens per minute for this key and the model m. 7 are left, and this request "
        "needs about 30: "
        "10 for its prompt and 20 for its answer. Try again in 1m30s.",
        "The request is too large: 900 tokens per minute is the limit for this key, and this request needs "
        "about 1200: 200 for "
        "its prompt and 1000 for its answer. Send a shorter prompt or a smaller max_tokens.",
        "Concurrency limit reached: 2 requests at the same time for this key. Try again when one has ended.",
        "the maximum context length of m is 100 tokens; your messages have 90 tokens and you asked for 20, 110 in all; "
        "shorten the one or lower the other",
        "the maximum context length of m is 100 tokens; your prompt has 100 tokens, which leaves no room for an "
        "answer; "
        "shorten it",
        "the prompt has 2 places for images of m, and there are 1 images; send images in the user's messages",
        "messages[0].content[1].image_url.url could not be fetched within 5 s; send the image as a data: URL",
        "messages[0].content[1].image_url.url could not be fetched from example.org: refused; send the image as "
        "a data: URL",
        "messages[0].content[1].image_url.url is on example.org, whose address is not a public one; "
        "send the image as a data: URL",
        "messages[0].content[1].image_url.url is redirected more than 3 times; send the image as a data: URL",
        "messages[0].content[1].image_url.url is not there: its host answers 404; send the image as a data: URL",
        "messages[0].content[1].image_url.url is answered in a compressed form, which was not asked for; "
        "send the image as a data: URL",
        "with messages[0].content[1].image_url.url, the request's images have more than 90 bytes; send fewer",
        "messages[0].content[1].image cannot be read: it is a JPEG with more than 100 scans; send a PNG, JPEG, "
        "WebP or GIF",
        "messages[0].content[1].image cannot be read: it is a GIF of 0×10 pixels; send a PNG, JPEG, WebP or GIF",
        "messages[0].content[1].image cannot be shown to m: it is 9000×9 pixels; one side may be 200 times the other",
        "messages[0].content[1].image is a PNG of 9000×9000 pixels, 81000000 in all; at most 50000000 are allowed; "
        "make it smaller",
        "image 2 cannot be read: it is no PNG, JPEG, WebP or GIF",
        "seed is not supported by the engine trtllm; leave it out",
        "input[3]: 100277 is no id of cl100k_base",
        "input[3]: the ids begin or end in the middle of a character",
    ],
)
def test_a_message_that_is_assembled_has_a_persian_text_without_english_sentences(message: str) -> None:
    text = translated(message, "fa")
    assert text is not None
    for fragment in re.findall("\u2066([^\u2069]*)\u2069", text):
        assert " " not in fragment


def test_what_is_inserted_is_laid_out_from_left_to_right() -> None:
    text = translated('messages[0].role must be a string, got a list: ["سلام"]', "fa")
    assert text == '\u2066messages[0].role\u2069 باید یک رشته باشد، اما یک فهرست است: \u2066["سلام"]\u2069'


@pytest.mark.parametrize("controls", ["\u2069\u202e", "\u202a\u202b\u202c\u202d", "\u2066\u2067\u2068"])
def test_what_is_inserted_cannot_turn_the_text_around_it(controls: str) -> None:
    text = translated(f'stop[0] must be a string, got a list: ["{controls} x"]', "fa")
    assert text == '\u2066stop[0]\u2069 باید یک رشته باشد، اما یک فهرست است: \u2066[" x"]\u2069'


@pytest.mark.parametrize("english", TEXTS)
def test_every_message_is_recognised_with_whatever_is_inserted(english: str) -> None:
    names = places(english)
    inserted = {name: f"<{name}>" for name in names}
    text = translated(english.format_map(inserted), "fa")
    assert text is not None
    assert all(f"\u2066<{name}>\u2069" in text for name in names if f"{{{name}}}" in TEXTS[english])


@pytest.mark.parametrize("english", TEXTS)
def test_no_message_takes_long_to_recognise_whatever_it_repeats(english: str) -> None:
    """An unknown field may have any name, and is said again in the message about it."""
    separators = [piece for piece in re.split(r"\{\w+\}", english)[1:] if piece.strip()]
    room = MOST_CHARACTERS // max(1, len(separators))
    name = "a" + "".join(f"{piece}a" * (room // (len(piece) + 1)) for piece in separators)
    message = f"{name[: MOST_CHARACTERS - 100]}: not part of the API (x-strict-params is on); leave it out"
    began = time.process_time()
    assert translated(message, "fa")
    translated(name[:MOST_CHARACTERS], "fa")
    assert time.process_time() - began < 0.5


def test_a_message_that_repeats_itself_deeply_is_still_translated() -> None:
    assert translated(("a is not JSON: " * 1000)[:MOST_CHARACTERS], "fa")


def test_an_unknown_message_stays_in_english() -> None:
    assert translated("an engine of tomorrow says something new", "fa") is None
    assert translated("x" * 100_000 + " is missing", "fa") is None
