"""Renders a conversation into a prompt with the model's own chat template.

The environment is the one for which such templates are written (Hugging Face's, described in the documentation of
`apply_chat_template`), and sandboxed: a template is data of a checkpoint, and must not run code.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Final, NoReturn

from jinja2 import TemplateError
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

from services.worker.triton_kit.checkpoint_file import read_object, read_text

LARGE_CHARACTERS: Final = 16_384


class TemplateRejection(Exception):
    """The template rejects the conversation. The message is the template's own."""


class ChatTemplate:
    """The chat template of a model directory."""

    def __init__(self, directory: Path, *, file: str = "auto") -> None:
        """Read and compile the template.

        `file` is the name of a template, or of JSON with a template under `chat_template`. `auto` is
        chat_template.jinja, or else tokenizer_config.json. Raises OSError, and ValueError for a missing or invalid
        template.
        """
        settings = directory / "tokenizer_config.json"
        configuration = read_object(settings)
        if file == "auto":
            file = "chat_template.jinja" if (directory / "chat_template.jinja").is_file() else settings.name
        source = _source(directory / file)
        if not source:
            raise ValueError(f"{directory} has no chat template in {file}")
        tokens = ("bos_token", "eos_token", "pad_token", "unk_token")
        self._tokens: Final = {name: _content(configuration.get(name)) for name in tokens}
        self.is_large: Final = len(source) > LARGE_CHARACTERS
        """Whether rendering may take long for any conversation, because most of the template may be in every prompt."""
        try:
            self._template: Final = _environment().from_string(source)
        except TemplateError as error:
            raise ValueError(f"{directory} has a chat template that is no template: {error}") from None

    @cached_property
    def keeps_later_system_messages(self) -> bool:
        """Whether the template renders a system message that is not the first message; some reject or skip it."""
        mark = "later-system-message"
        conversation = [("user", "a"), ("assistant", "b"), ("user", "c"), ("system", mark)]
        try:
            text = self.render([{"role": role, "content": content} for role, content in conversation])
        except TemplateRejection:
            return False
        return mark in text

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        tools: Sequence[Mapping[str, Any]] = (),
        add_generation_prompt: bool = True,
        variables: Mapping[str, Any] | None = None,
    ) -> str:
        """Return the prompt of a conversation. Raises TemplateRejection."""
        try:
            return self._template.render(
                **{
                    **self._tokens,
                    **(variables or {}),
                    "messages": messages,
                    "tools": tools or None,
                    "add_generation_prompt": add_generation_prompt,
                }
            )
        except (TemplateError, TypeError, ValueError, ArithmeticError, LookupError, RecursionError) as error:
            # A template is a program: an error while it renders a conversation is caused by the conversation.
            raise TemplateRejection(str(error)) from None


def _source(path: Path) -> Any:
    if path.suffix != ".json":
        return read_text(path)
    source = read_object(path).get("chat_template")
    if isinstance(source, list):
        source = next((entry["template"] for entry in source if entry["name"] == "default"), None)
    return source


def _environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
    environment.filters["tojson"] = _tojson
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = lambda form: datetime.now().astimezone().strftime(form)
    return environment


def _tojson(
    value: object,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise_exception(message: str) -> NoReturn:
    raise TemplateError(message)


def _content(token: str | Mapping[str, Any] | None) -> str:
    return token or "" if isinstance(token, str) or token is None else str(token["content"])
