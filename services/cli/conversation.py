"""A conversation with a model, whose answers are read as streams."""

from __future__ import annotations

import base64
import mimetypes
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, Final

import openai
from openai.types.chat import ChatCompletionChunk

_CONTROL: Final = {code: None for code in range(32) if chr(code) not in "\n\t"} | dict.fromkeys(range(127, 160))
"""Characters with which a model's text could move the cursor of the terminal, or do worse."""


class Kind(Enum):
    """The kind of a piece of an answer."""

    REASONING = "reasoning"
    ANSWER = "answer"


class ImageError(Exception):
    """A file cannot be sent as an image. The message is one line."""


@dataclass
class Speed:
    """The speed of an answer."""

    first_seconds: float | None = None
    """Seconds from the request to the first token."""
    seconds: float = 0.0
    """Seconds from the first token to the last one."""
    tokens: int = 0

    def __str__(self) -> str:
        """Return the figures in one line; empty without a token."""
        if self.first_seconds is None:
            return ""
        rate = f", {(self.tokens - 1) / self.seconds:.1f} tokens/s" if self.tokens > 1 and self.seconds > 0 else ""
        return f"{self.tokens} tokens{rate}, first token after {self.first_seconds:.1f} s"


@dataclass
class Conversation:
    """The conversation with a model."""

    client: openai.OpenAI
    model: str
    parameters: Mapping[str, Any]
    """Further fields of each request."""
    messages: list[dict[str, Any]] = field(default_factory=list)
    speed: Speed = field(default_factory=Speed)
    """The speed of the last answer."""

    @property
    def system(self) -> str:
        """The system prompt; empty without one."""
        return str(self.messages[0]["content"]) if self.messages and self.messages[0]["role"] == "system" else ""

    @system.setter
    def system(self, text: str) -> None:
        rest = [message for message in self.messages if message["role"] != "system"]
        self.messages[:] = [*([{"role": "system", "content": text}] if text else []), *rest]

    def clear(self) -> None:
        """Forget everything but the system prompt."""
        self.messages[:] = [message for message in self.messages if message["role"] == "system"]

    def models(self) -> list[str]:
        """Return the ids of the available chat models. Raises openai.OpenAIError."""
        listed = (model.model_dump() for model in self.client.models.list())
        return [one["id"] for one in listed if one.get("available") and one.get("capabilities", {}).get("chat")]

    def ask(self, text: str, images: Sequence[str] = ()) -> Iterator[tuple[Kind, str]]:
        """Send a message, with images as `data:` URLs, and yield the pieces of the answer.

        Only a complete answer becomes part of the conversation, together with its question.

        Raises:
            openai.OpenAIError: The request was rejected, or the stream ended with an error.
        """
        question = {"role": "user", "content": _content(text, images)}
        content = ""
        for kind, piece in self._stream([*self.messages, question]):
            content += piece if kind is Kind.ANSWER else ""
            yield kind, piece.translate(_CONTROL)
        self.messages += [question, {"role": "assistant", "content": content}]

    def _stream(self, messages: Sequence[dict[str, Any]]) -> Iterator[tuple[Kind, str]]:
        began, self.speed = time.monotonic(), Speed()
        stream: openai.Stream[ChatCompletionChunk] = self.client.chat.completions.create(  # type: ignore[call-overload]
            model=self.model,
            messages=messages,  # the types of the SDK are those of literals
            stream=True,
            stream_options={"include_usage": True},
            **self.parameters,
        )
        first = last = None
        with closing(stream):
            for chunk in stream:
                if chunk.usage is not None:
                    self.speed.tokens = chunk.usage.completion_tokens
                for choice in chunk.choices:
                    for kind, piece in _pieces(choice.delta.model_dump()):
                        last = time.monotonic()
                        first = first or last
                        yield kind, piece
        if first is not None and last is not None:
            self.speed.first_seconds, self.speed.seconds = first - began, last - first


def read_image(path: Path) -> str:
    """Return an image file as a `data:` URL. Raises ImageError."""
    kind, _ = mimetypes.guess_type(path.name)
    if kind is None or not kind.startswith("image/"):
        raise ImageError(f"{path} has no name of an image, such as photo.jpg or drawing.png")
    try:
        data = path.expanduser().read_bytes()
    except OSError as error:
        raise ImageError(f"{path} cannot be read: {error.strerror}") from None
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def _content(text: str, images: Sequence[str]) -> str | list[dict[str, Any]]:
    if not images:
        return text
    parts: list[dict[str, Any]] = [{"type": "image_url", "image_url": {"url": url}} for url in images]
    return [*parts, {"type": "text", "text": text}]


def _pieces(delta: Mapping[str, Any]) -> Iterator[tuple[Kind, str]]:
    for kind, name in ((Kind.REASONING, "reasoning_content"), (Kind.ANSWER, "content")):
        if piece := delta.get(name):
            yield kind, piece
