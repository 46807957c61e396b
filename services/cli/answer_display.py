"""Shows an answer in the terminal while it is generated."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Final

from services.cli.conversation import Conversation, Kind
from services.cli.growing_answer import GrowingAnswer
from services.cli.json_output import print_json
from services.cli.quiet_keyboard import without_echo

DIM: Final = "\x1b[2m"
PLAIN: Final = "\x1b[0m"
_DIRECTION_BY_TEXT: Final = "\x1b[?2501h"
_DIRECTION_FIXED: Final = "\x1b[?2501l"


@contextmanager
def direction_by_text() -> Iterator[None]:
    """Ask the terminal to align each paragraph by its own text, so that Persian begins at the right.

    Terminals that follow https://terminal-wg.pages.freedesktop.org/bidi/ do so, and others ignore it.
    """
    if not sys.stdout.isatty():
        yield
        return
    print(_DIRECTION_BY_TEXT, end="", flush=True)
    try:
        yield
    finally:
        print(_DIRECTION_FIXED, end="", flush=True)


def show_answer(conversation: Conversation, text: str, images: Sequence[str] = ()) -> None:
    """Ask, and print the answer. On a terminal, the reasoning is printed before it, and the speed after it, both dim.

    There, the Markdown of the answer is shown as styles, except on a terminal without any (TERM=dumb). Elsewhere the
    answer is printed as it is.

    Raises openai.OpenAIError.
    """
    if not sys.stdout.isatty():
        for kind, piece in conversation.ask(text, images):
            if kind is Kind.ANSWER:
                print(piece, end="", flush=True)
        print()
        return
    with without_echo():
        _show_growing(conversation, text, images)


def _show_growing(conversation: Conversation, text: str, images: Sequence[str]) -> None:
    last: Kind | None = None
    answer = GrowingAnswer(partial(print, end="", flush=True), shutil.get_terminal_size)
    is_plain = os.environ.get("TERM") == "dumb"
    for kind, piece in conversation.ask(text, images):
        if kind is not last:
            between = "\n\n" if last else ""
            print(between + (DIM if kind is Kind.REASONING else PLAIN), end="", flush=True)
            last = kind
        if kind is Kind.REASONING or is_plain:
            print(piece, end="", flush=True)
        else:
            answer.add(piece)
    answer.end()
    print(PLAIN)
    print(f"{DIM}{conversation.speed}{PLAIN}")


def print_as_json(conversation: Conversation, text: str, images: Sequence[str] = ()) -> None:
    """Ask, and print the whole answer with its figures as one line of JSON. Raises openai.OpenAIError."""
    pieces: dict[Kind, str] = dict.fromkeys(Kind, "")
    for kind, piece in conversation.ask(text, images):
        pieces[kind] += piece
    speed = conversation.speed
    print_json(
        {
            "model": conversation.model,
            "answer": pieces[Kind.ANSWER],
            "reasoning": pieces[Kind.REASONING] or None,
            "completion_tokens": speed.tokens,
            "first_token_seconds": speed.first_seconds,
            "seconds": speed.seconds,
        }
    )
