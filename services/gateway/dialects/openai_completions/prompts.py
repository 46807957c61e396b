"""Reads the prompts of a text completion: one or several, each a text or the ids of its tokens."""

from __future__ import annotations

from typing import Any

from vilix.inference.v1 import inference_service_pb2 as pb

from services.gateway.dialects.json_model import wrong_type
from services.gateway.errors import bad_request
from services.runtime.messages.message import Message


def add_prompts(prompt: str | list[Any], generate: pb.GenerateRequest, *, may_be_empty: bool) -> list[str | None]:
    """Set the prompts, and return their texts, in order; None for token ids. Raises ApiError.

    An empty text is a prompt only if it `may_be_empty`, because something follows.
    """
    if isinstance(prompt, str):
        _check_text("prompt", prompt, may_be_empty=may_be_empty)
        generate.prompt = prompt
        return [prompt]
    if not prompt:
        raise bad_request(Message("list_empty", field="prompt"))
    if not isinstance(prompt[0], str | list):
        generate.prompt_token_ids.extend(_token_ids("prompt", prompt))
        return [None]
    texts: list[str | None] = []
    for index, one in enumerate(prompt):
        path = f"prompt[{index}]"
        if isinstance(one, str):
            _check_text(path, one, may_be_empty=may_be_empty and len(prompt) == 1)
            texts.append(one)
            if index:
                generate.further_prompts.add(text=one)
            else:
                generate.prompt = one
        else:
            texts.append(None)
            ids = _token_ids(path, one)
            (generate.further_prompts.add().token_ids.ids if index else generate.prompt_token_ids).extend(ids)
    return texts


def _check_text(path: str, text: str, *, may_be_empty: bool) -> None:
    if not text and not may_be_empty:
        raise bad_request(Message("text_empty", field=path))


def _token_ids(path: str, value: Any) -> list[int]:
    if not isinstance(value, list):
        raise wrong_type(path, "string | array", value)
    if not value:
        raise bad_request(Message("list_empty", field=path))
    for index, token_id in enumerate(value):
        if not isinstance(token_id, int):
            raise wrong_type(f"{path}[{index}]", "integer", token_id)
    return value
