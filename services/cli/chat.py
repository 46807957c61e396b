"""`vilix chat`: a conversation in the terminal, to try a deployment."""

from __future__ import annotations

import contextlib
import sys
from functools import partial
from typing import Annotated, Final

import openai
import typer

from services.cli.answer_display import DIM, PLAIN, direction_by_text, print_as_json, show_answer
from services.cli.api_access import ApiOptions, connected, explain
from services.cli.chat_commands import ChatCommands, read_message
from services.cli.conversation import Conversation, ImageError, read_image
from services.cli.failure import fail
from services.cli.json_output import AsJson
from services.cli.option_group import with_options

with contextlib.suppress(ImportError):
    import readline  # noqa: F401  # with it, `input` can edit lines and recalls earlier ones

PROMPT: Final = "› "
MORE: Final = "… "


@with_options(ApiOptions)
def chat(
    model: Annotated[
        str, typer.Argument(metavar="[MODEL]", help="The model's id; default: the first available chat model.")
    ] = "",
    *,
    options: ApiOptions,
    as_json: AsJson = False,
) -> None:
    """Chat with a model in the terminal.

    Reasoning is dim. Ctrl-C stops a response, Ctrl-D exits, and /help lists the commands: other models, a system
    prompt, images, messages of several lines. The API key is read from VILIX_API_KEY, or else from the running local
    stack. Piped input is sent as one message.

    Persian is shown as well as the terminal can. Those that reorder right-to-left text show it correctly: GNOME
    Terminal and others with VTE, Konsole, mlterm, Terminal.app. Others, such as kitty, Alacritty, xterm, VS Code's, and
    most inside tmux, show its letters from left to right and unjoined. The text itself is right: the playground in the
    browser shows it.

    Markdown is shown as styles on a terminal, and as it is elsewhere. With --json, each answer is one line of JSON, and
    what the commands say is printed to stderr.

    Examples:
      vilix chat
      vilix chat qwen3-8b --url https://ai.example.com/api
      vilix chat qwen3-vl --image photo.jpg
      echo "Why is the sky blue?" | vilix chat smollm2-135m --max-tokens 50
      echo "Why is the sky blue?" | vilix chat --json
    """
    try:
        images = [read_image(path) for path in options.image or ()]
    except ImageError as error:
        fail(str(error))
    with connected(options) as client:
        conversation = Conversation(client, model, options.parameters())
        conversation.system = options.system
        if not model:
            models = conversation.models()
            conversation.model = models[0] if models else fail("no chat model is available now; try again in a moment")
        if sys.stdin.isatty():
            with contextlib.nullcontext() if as_json else direction_by_text():
                _converse(ChatCommands(conversation, images), str(client.base_url), as_json=as_json)
        elif text := sys.stdin.read().strip():
            (print_as_json if as_json else show_answer)(conversation, text, images)


def _converse(commands: ChatCommands, base_url: str, *, as_json: bool) -> None:
    say = partial(print, file=sys.stderr if as_json else sys.stdout)
    answer = print_as_json if as_json else show_answer
    say(f"{DIM}{commands.conversation.model}; /help lists the commands, Ctrl-D exits{PLAIN}")
    while not commands.is_over:
        try:
            text = read_message(input, prompt=PROMPT, more=MORE)
        except EOFError:
            print()
            return
        except KeyboardInterrupt:
            print()
            continue
        if not text.strip():
            continue
        try:
            if text.startswith("/"):
                if result := commands.run(text):
                    say(f"{DIM}{result}{PLAIN}")
            else:
                answer(commands.conversation, text.strip(), commands.take_images())
        except KeyboardInterrupt:
            say(f"{PLAIN}\n{DIM}stopped{PLAIN}")
        except openai.OpenAIError as error:
            print(f"{PLAIN}error: {explain(error, base_url)}", file=sys.stderr)
