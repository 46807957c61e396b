"""From a request to the prompt: chat template, tokens, and how many may follow."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from google.protobuf import json_format
from vilix.inference.v1 import inference_service_pb2 as pb

from services.failure import Failure, Reason, Violation, invalid
from services.inference.chat_template import TemplateRefusal
from services.inference.guides import is_guided
from services.inference.large_requests import apart
from services.inference.reasoning import OPEN_TAG
from services.inference.served_model import ServedModel
from services.inference.tokenizer import TooManyTokensError
from services.inference.tools import template_tools

MAX_REFUSAL_LENGTH: Final = 300

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
    opens_thought: bool = False
    """Whether it ends with the tag that opens a thought, so that the answer begins inside it."""


async def render(request: pb.GenerateRequest, model: ServedModel) -> Prompt:
    """The prompt of a checked request. Raises Failure when the template refuses it or the context is too short."""
    return await apart(request, partial(_render, request, model))


def context_length(model: ServedModel) -> int:
    """Most tokens of prompt and answer together."""
    return min(model.spec.context_length, model.engine().context_length)


def context_exceeded(request: pb.GenerateRequest, model: ServedModel, prompt_tokens: int) -> Failure:
    """Says that a prompt of so many tokens and the answer that was asked for do not fit."""
    field = "messages" if request.messages else "prompt" if request.HasField("prompt") else "prompt_token_ids"
    limit, wanted = context_length(model), _least_answer(request)
    message = (
        f"the maximum context length of {model.id} is {limit} tokens; your {field.split('_', maxsplit=1)[0]} "
        f"{'have' if request.messages else 'has'} {prompt_tokens} tokens"
    )
    if request.sampling.HasField("max_tokens") or request.sampling.HasField("min_tokens"):
        message += f" and you asked for {wanted}, {prompt_tokens + wanted} in all; shorten the one or lower the other"
    else:
        message += ", which leaves no room for an answer; shorten it"
    violation = Violation(field, message, str(prompt_tokens + wanted), str(limit))
    return Failure(Reason.CONTEXT_LENGTH_EXCEEDED, message, violations=(violation,))


def _least_answer(request: pb.GenerateRequest) -> int:
    return max(1, request.sampling.max_tokens, request.sampling.min_tokens)


def _render(request: pb.GenerateRequest, model: ServedModel) -> Prompt:
    tokenizer = model.tokenizer
    most = context_length(model)
    try:
        if request.prompt_token_ids:
            text, token_ids = "", list(request.prompt_token_ids)
        elif request.HasField("prompt"):
            text, token_ids = request.prompt, tokenizer.encode(request.prompt, most=most)
        else:
            guarded = _apply_template(request, model)
            text, token_ids = tokenizer.unguard(guarded), tokenizer.encode(guarded, most=most)
    except TooManyTokensError as error:
        raise context_exceeded(request, model, error.count) from None
    if not token_ids:
        raise invalid("prompt", "the prompt is empty; it needs at least one token")
    room = most - len(token_ids)
    if _least_answer(request) > room:
        raise context_exceeded(request, model, len(token_ids))
    return Prompt(text, token_ids, room, opens_thought=text.rstrip().endswith(OPEN_TAG))


def _apply_template(request: pb.GenerateRequest, model: ServedModel) -> str:
    messages = [_message(message, model) for message in request.messages]
    try:
        text = model.template.render(
            messages,
            tools=template_tools(request),
            add_generation_prompt=not request.continue_final_message,
            variables=_variables(request, model),
        )
    except TemplateRefusal as refusal:
        # A template may quote the messages, and a status must stay small.
        said = model.tokenizer.unguard(str(refusal))[:MAX_REFUSAL_LENGTH]
        message = f"the chat template of {model.id} refuses these messages: {said}"
        raise invalid("messages", message) from None
    return _without_end(text, messages[-1]["content"], model) if request.continue_final_message else text


def _without_end(text: str, last: str, model: ServedModel) -> str:
    """The prompt up to its last message's content: what the template puts behind it is to be generated instead."""
    # Some templates strip contents.
    for content in (last, last.rstrip(), last.strip()):
        before, found, _ = text.rpartition(content)
        if found:
            return before + found
    raise invalid("continue_final_message", f"the chat template of {model.id} changes the last message; leave it out")


def _message(message: pb.Message, model: ServedModel) -> dict[str, Any]:
    guard = model.tokenizer.guard
    rendered: dict[str, Any] = {
        "role": _ROLES[message.role],
        "content": guard("".join(part.text for part in message.content)),
    }
    for name in ("reasoning_content", "name", "tool_call_id"):
        if value := getattr(message, name):
            rendered[name] = guard(value)
    if message.tool_calls:
        rendered["tool_calls"] = [_tool_call(call, model) for call in message.tool_calls]
    return rendered


def _tool_call(call: pb.ToolCall, model: ServedModel) -> dict[str, Any]:
    # Guarded as text: what a caller says that a model once wrote is no control token either.
    arguments = json.loads(model.tokenizer.guard(call.arguments_json) or "{}")
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": arguments}}


def _variables(request: pb.GenerateRequest, model: ServedModel) -> dict[str, Any]:
    variables: dict[str, Any] = json_format.MessageToDict(request.chat_template_kwargs)
    reasoning = request.reasoning
    if reasoning.HasField("enabled"):
        variables["enable_thinking"] = reasoning.enabled
    elif reasoning.effort != pb.REASONING_EFFORT_UNSPECIFIED:
        variables["enable_thinking"] = reasoning.effort != pb.REASONING_EFFORT_NONE
    if is_guided(request) and model.spec.capabilities.reasoning_optional:
        # A form holds from the first token on: there is no room for a thought.
        variables["enable_thinking"] = False
    return variables
