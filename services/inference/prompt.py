"""From a request to the prompt: chat template, tokens, and how many may follow."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import Any, Final

from google.protobuf import json_format
from vilix.inference.v1 import inference_service_pb2 as pb

from services.failure import Failure, Reason, Violation, invalid
from services.inference.chat_template import TemplateRefusal
from services.inference.served_model import ServedModel

IN_THREAD_BYTES: Final = 4096
"""Larger requests are rendered in a thread: encoding costs about 0.2 ms per kilobyte, and the loop serves others."""

_ROLES: Final = {
    pb.ROLE_SYSTEM: "system",
    pb.ROLE_USER: "user",
    pb.ROLE_ASSISTANT: "assistant",
    pb.ROLE_TOOL: "tool",
}


@dataclass(frozen=True, slots=True)
class Prompt:
    """A rendered prompt."""

    text: str
    """Empty when the request gave token ids."""
    token_ids: list[int]
    room: int
    """How many tokens the context has left for the answer."""


async def render(request: pb.GenerateRequest, model: ServedModel) -> Prompt:
    """The prompt of a checked request. Raises Failure when the template refuses it or the context is too short."""
    if request.ByteSize() > IN_THREAD_BYTES:
        return await asyncio.to_thread(_render, request, model)
    return _render(request, model)


def _render(request: pb.GenerateRequest, model: ServedModel) -> Prompt:
    tokenizer = model.tokenizer
    if request.prompt_token_ids:
        text, token_ids = "", list(request.prompt_token_ids)
    elif request.HasField("prompt"):
        text, token_ids = request.prompt, tokenizer.encode(request.prompt)
    else:
        guarded = _apply_template(request, model)
        text, token_ids = tokenizer.unguard(guarded), tokenizer.encode(guarded)
    return Prompt(text, token_ids, _room(request, model, len(token_ids)))


def _apply_template(request: pb.GenerateRequest, model: ServedModel) -> str:
    messages = [_message(f"messages[{i}]", message, model) for i, message in enumerate(request.messages)]
    try:
        text = model.template.render(
            messages,
            add_generation_prompt=not request.continue_final_message,
            variables=json_format.MessageToDict(request.chat_template_kwargs),
        )
    except TemplateRefusal as refusal:
        raise invalid("messages", f"the chat template of {model.id} refuses these messages: {refusal}") from None
    if request.continue_final_message:
        last = messages[-1]["content"].strip()
        # The template closes the turn behind the last message; what follows it is to be generated instead.
        text = text[: text.rindex(last) + len(last)]
    return text


def _message(path: str, message: pb.Message, model: ServedModel) -> dict[str, Any]:
    content = "".join(part.text for part in message.content)
    rendered: dict[str, Any] = {"role": _ROLES[message.role], "content": model.tokenizer.guard(content)}
    for name in ("reasoning_content", "tool_call_id", "name"):
        if value := getattr(message, name):
            rendered[name] = model.tokenizer.guard(value)
    if message.tool_calls:
        rendered["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": _arguments(path, i, call)}}
            for i, call in enumerate(message.tool_calls)
        ]
    return rendered


def _arguments(path: str, index: int, call: pb.ToolCall) -> Any:
    try:
        return json.loads(call.arguments_json or "{}")
    except ValueError as error:
        field = f"{path}.tool_calls[{index}].arguments_json"
        raise invalid(field, f"{field} is not JSON: {error}") from None


def _room(request: pb.GenerateRequest, model: ServedModel, prompt_tokens: int) -> int:
    context_length = min(model.spec.context_length, model.engine().context_length)
    if prompt_tokens == 0:
        raise invalid("prompt", "the prompt is empty; it needs at least one token")
    wanted = max(1, request.sampling.max_tokens, request.sampling.min_tokens)
    if prompt_tokens + wanted > context_length:
        message = (
            f"the maximum context length of {model.id} is {context_length} tokens; your messages have {prompt_tokens} tokens "
            f"and you asked for {wanted} more, {prompt_tokens + wanted} in all; shorten the messages or ask for fewer"
        )
        violation = Violation("messages", message, str(prompt_tokens + wanted), str(context_length))
        raise Failure(Reason.CONTEXT_LENGTH_EXCEEDED, message, violations=(violation,))
    return context_length - prompt_tokens
