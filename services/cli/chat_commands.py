"""Input of `vilix chat`: messages of one or several lines, and commands that begin with a slash."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from services.cli.conversation import Conversation, ImageError, read_image

MANY_LINES: Final = '"""'
HELP: Final = f"""\
/model [ID]      show the available models, or continue with another one
/system [TEXT]   show the system prompt, or set it (/system none removes it)
/image PATH      send an image with the next message
/clear           forget the conversation
/help            show this list
/exit            leave, as Ctrl-D does

{MANY_LINES} begins and ends a message of several lines.
A line that ends with \\ is continued.
Ctrl-C stops an answer, which is then forgotten together with its question.
To send a message that begins with a slash, type a space before it."""


@dataclass
class ChatCommands:
    """The commands of one conversation. Each has a method `_NAME`, and returns a text for the user."""

    conversation: Conversation
    images: list[str] = field(default_factory=list)
    """Images for the next message, as `data:` URLs."""
    is_over: bool = False

    def run(self, line: str) -> str:
        """Run a line that begins with a slash. Raises openai.OpenAIError."""
        name, _, argument = line[1:].partition(" ")
        commands: dict[str, Callable[[str], str]] = {
            "help": lambda _: HELP,
            "?": lambda _: HELP,
            "model": self._model,
            "system": self._system,
            "image": self._image,
            "clear": self._clear,
            "exit": self._exit,
            "bye": self._exit,
            "quit": self._exit,
        }
        command = commands.get(name)
        if command is None:
            return (
                f"There is no command /{name}; /help lists the commands. To send it as a message, begin with a space."
            )
        return command(argument.strip())

    def take_images(self) -> list[str]:
        """Return the images for the next message, which are sent only once."""
        images, self.images = self.images, []
        return images

    def _model(self, argument: str) -> str:
        models = self.conversation.models()
        if not argument:
            return "\n".join(f"{'*' if model == self.conversation.model else ' '} {model}" for model in models)
        if argument not in models:
            return f"There is no model {argument!r}; available are {', '.join(models)}."
        self.conversation.model = argument
        return f"Continuing with {argument}."

    def _system(self, argument: str) -> str:
        if not argument:
            return self.conversation.system or "There is no system prompt."
        self.conversation.system = "" if argument == "none" else argument
        return "The system prompt is set." if self.conversation.system else "The system prompt is removed."

    def _image(self, argument: str) -> str:
        if not argument:
            return "Name a file: /image PATH"
        try:
            self.images.append(read_image(Path(argument.strip("'\""))))
        except ImageError as error:
            return str(error)
        count = len(self.images)
        return f"{'An image' if count == 1 else f'{count} images'} will be sent with the next message."

    def _clear(self, _: str) -> str:
        self.conversation.clear()
        self.images.clear()
        return "The conversation is forgotten."

    def _exit(self, _: str) -> str:
        self.is_over = True
        return ""


def read_message(read_line: Callable[[str], str], *, prompt: str, more: str) -> str:
    """Return what a user types, which may take several lines; `more` is the prompt of further lines.

    Raises EOFError and KeyboardInterrupt, as `read_line` does.
    """
    line = read_line(prompt)
    if line.strip().startswith(MANY_LINES):
        return _read_to_end(line.strip().removeprefix(MANY_LINES), read_line, more)
    lines = []
    while line.endswith("\\"):
        lines.append(line[:-1])
        line = read_line(more)
    return "\n".join([*lines, line])


def _read_to_end(first: str, read_line: Callable[[str], str], more: str) -> str:
    lines, line = [], first
    while MANY_LINES not in line:
        lines.append(line)
        line = read_line(more)
    return "\n".join([*lines, line.partition(MANY_LINES)[0]]).strip("\n")
