"""`vilix run`: one question to a model."""

from __future__ import annotations

import os
import stat
import sys
from typing import Annotated

import typer

from services.cli.answer_display import direction_by_text, print_as_json, show_answer
from services.cli.api_access import ApiOptions, connected
from services.cli.conversation import Conversation, ImageError, read_image
from services.cli.failure import fail
from services.cli.json_output import AsJson
from services.cli.option_group import with_options


@with_options(ApiOptions)
def run(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="The model's id: vilix chat, then /model, lists them.")],
    question: Annotated[
        list[str] | None,
        typer.Argument(metavar="[QUESTION]", help="The question. Piped input follows it, or is the question itself."),
    ] = None,
    *,
    options: ApiOptions,
    as_json: AsJson = False,
) -> None:
    """Ask a model one question, and print its answer.

    Where the output is no terminal, the answer alone is printed, without its reasoning. The API key is read from
    VILIX_API_KEY, or else from the running local stack.

    Examples:
      vilix run qwen2.5-coder-0.5b "What is a generator in Python?"
      git diff | vilix run qwen3-8b "Write a commit message for this change."
      echo "Why is the sky blue?" | vilix run smollm2-135m --json
    """
    text = "\n\n".join(filter(None, [" ".join(question or ()).strip(), _piped().strip()]))
    if not text:
        fail('there is no question: vilix run MODEL "question", or pipe it in')
    try:
        images = [read_image(path) for path in options.image or ()]
    except ImageError as error:
        fail(str(error))
    with connected(options) as client:
        conversation = Conversation(client, model, options.parameters())
        conversation.system = options.system
        try:
            if as_json:
                print_as_json(conversation, text, images)
            else:
                with direction_by_text():
                    show_answer(conversation, text, images)
        except KeyboardInterrupt:
            raise typer.Exit(130) from None


def _piped() -> str:
    """Return what is piped in. A terminal, and the device that programs without input get, have nothing."""
    try:
        mode = os.fstat(sys.stdin.fileno()).st_mode
    except (OSError, ValueError, AttributeError):
        return ""
    return sys.stdin.read() if stat.S_ISFIFO(mode) or stat.S_ISREG(mode) else ""
