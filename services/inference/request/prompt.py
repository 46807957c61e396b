"""Renders a request into a prompt: chat template, token ids, images, and the tokens that remain in the context."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import Any, Final

from google.protobuf import json_format
from vilix.inference.v1 import inference_service_pb2 as pb

from services.inference.model.chat_template import TemplateRejection
from services.inference.model.served_model import ServedModel
from services.inference.model.tokenizer import TooManyTokensError
from services.inference.parsing.reasoning import CLOSE_TAG, OPEN_TAG
from services.inference.request.images import PreparedImage, prepared_images
from services.inference.request.reasoning_policy import (
    OPENING,
    enables_reasoning,
    needs_separate_reasoning,
    sets_reasoning,
)
from services.inference.request.tools import called_arguments, template_tools
from services.runtime.failure import Failure, Reason, invalid
from services.runtime.messages.message import Message
from services.worker.offload import run_in_thread_if_large

MAX_REJECTION_LENGTH: Final = 300

# fmt: off
_SCHEMA_WORDS: Final = frozenset((
    "type", "function", "name", "description", "parameters", "properties", "required", "items", "enum", "const",
    "default", "title", "anyOf", "allOf", "oneOf", "object", "array", "string", "number", "integer", "boolean", "null",
    "additionalProperties", "$ref", "$defs", "definitions", "format", "nullable",
))
# fmt: on
"""Words of tool definitions that templates compare, so that they must reach the template unchanged."""

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
    """The text of the prompt; empty for a request with token ids."""
    token_ids: list[int]
    """The token ids, with one placeholder per image."""
    remaining_tokens: int
    """The number of tokens that the context has left for the generation."""
    opens_reasoning: bool = False
    """Whether the prompt ends with the opening tag of reasoning, so that the generation begins inside it."""
    separate_reasoning: bool = False
    """Whether a separate request generates the reasoning: see choice_requests.py."""
    images: tuple[PreparedImage, ...] = ()
    """The images, in the order of their placeholders."""

    @property
    def token_count(self) -> int:
        """The number of tokens that the model reads, those of images included."""
        return _token_count(self.token_ids, self.images)


async def render(request: pb.GenerateRequest, model: ServedModel) -> Prompt:
    """Return the prompt of a checked request. Raises Failure if the template rejects it or it exceeds the context."""
    is_large = bool(request.messages) and model.template.is_large
    return await run_in_thread_if_large(request, partial(_render, request, model), is_large=is_large)


def context_length(model: ServedModel) -> int:
    """Return the most tokens of prompt and generation together."""
    return min(model.spec.context_length, model.engine().context_length)


def context_exceeded(request: pb.GenerateRequest, model: ServedModel, prompt_tokens: int) -> Failure:
    """Return the failure of a prompt of `prompt_tokens` that does not fit the context with the requested generation."""
    field = "messages" if request.messages else "prompt" if request.HasField("prompt") else "prompt_token_ids"
    limit, requested = context_length(model), _least_answer(request)
    if requested > 1 or (request.sampling.HasField("max_tokens") and not request.clamp_max_tokens):
        message = Message(
            "context_exceeded",
            field=field,
            model=model.id,
            prompt=prompt_tokens,
            requested=requested,
            value=prompt_tokens + requested,
            limit=limit,
        )
    else:
        message = Message("context_full", field=field, model=model.id, value=prompt_tokens, limit=limit)
    return Failure(Reason.CONTEXT_LENGTH_EXCEEDED, message)


def _least_answer(request: pb.GenerateRequest) -> int:
    """Return the number of tokens for which the context must have capacity."""
    sampling = request.sampling
    return max(1, 0 if request.clamp_max_tokens else sampling.max_tokens, sampling.min_tokens)


def clamped_max_tokens(request: pb.GenerateRequest, prompt: Prompt) -> int | None:
    """Return the number to which the context limits `max_tokens`; None if it holds what the request asks for."""
    is_over = request.clamp_max_tokens and request.sampling.max_tokens > prompt.remaining_tokens
    return prompt.remaining_tokens if is_over else None


def _render(request: pb.GenerateRequest, model: ServedModel) -> Prompt:
    tokenizer = model.tokenizer
    most = context_length(model)
    try:
        if request.prompt_token_ids:
            guarded, token_ids = "", list(request.prompt_token_ids)
            _check_control_tokens(token_ids, model)
        elif request.HasField("prompt"):
            guarded = _raw_prompt(request, model)
            token_ids = tokenizer.encode(guarded, most=most)
        else:
            guarded = _apply_template(request, model)
            if _worker_opens_reasoning(request, model) and not guarded.rstrip().endswith(OPEN_TAG):
                guarded += OPENING
            token_ids = tokenizer.encode(guarded, most=most)
    except TooManyTokensError as error:
        raise context_exceeded(request, model, error.count) from None
    if not token_ids:
        raise invalid(Message("prompt_empty", field="prompt"))
    images = tuple(prepared_images(request, model))
    _check_placeholders(token_ids, images, model)
    count = _token_count(token_ids, images)
    remaining_tokens = most - count
    if _least_answer(request) > remaining_tokens:
        raise context_exceeded(request, model, count)
    # A tag in a caller's text is guarded, so that it does not open reasoning.
    opens = guarded.rstrip().endswith(OPEN_TAG)
    return Prompt(
        tokenizer.unguard(guarded),
        token_ids,
        remaining_tokens,
        opens_reasoning=opens,
        separate_reasoning=opens and needs_separate_reasoning(request) and model.supports_reasoning_budget,
        images=images,
    )


def _raw_prompt(request: pb.GenerateRequest, model: ServedModel) -> str:
    """Return a prompt without a template, with the tokens around the gap before its suffix, if it has one."""
    guard, tokens = model.tokenizer.guard, model.spec.fill_in_middle
    if request.suffix and tokens is not None:
        return f"{tokens.prefix}{guard(request.prompt)}{tokens.suffix}{guard(request.suffix)}{tokens.middle}"
    return request.prompt if model.spec.control_tokens_in_prompts else guard(request.prompt)


def _token_count(token_ids: Sequence[int], images: Sequence[PreparedImage]) -> int:
    return len(token_ids) - len(images) + sum(image.tokens for image in images)


def _check_control_tokens(token_ids: Sequence[int], model: ServedModel) -> None:
    """Raise Failure for a control token among the ids of a caller, unless the model's catalog entry allows them."""
    if model.spec.control_tokens_in_prompts:
        return
    control = model.tokenizer.control_ids
    for index, token_id in enumerate(token_ids):
        if token_id in control:
            field = f"prompt_token_ids[{index}]"
            raise invalid(Message("control_token_in_prompt", field=field, value=token_id, model=model.id))


def _check_placeholders(token_ids: Sequence[int], images: Sequence[PreparedImage], model: ServedModel) -> None:
    """Raise Failure unless the prompt has one placeholder per image: some templates skip images of some messages."""
    if model.image_rule is None:
        return
    placeholders = token_ids.count(model.tokenizer.added_id(model.image_rule.placeholder) or -1)
    if placeholders != len(images):
        message = Message("image_placeholders_mismatch", field="messages", placeholders=placeholders, count=len(images))
        raise invalid(message)


def _worker_opens_reasoning(request: pb.GenerateRequest, model: ServedModel) -> bool:
    """Return whether the worker writes the opening tag that the model would write, to limit the reasoning."""
    return (
        needs_separate_reasoning(request)
        and enables_reasoning(request, model)
        and model.supports_reasoning_budget
        and not request.continue_final_message
    )


def _apply_template(request: pb.GenerateRequest, model: ServedModel) -> str:
    messages = [_message(message, model) for message in request.messages]
    if not model.template.keeps_later_system_messages:
        messages = _with_one_system_message(messages)
    # The text of the template behind the last message is removed, so that the model continues the message. The end of
    # the message is found by a random mark, because its text may occur in the template's text as well.
    mark = secrets.token_hex(16) if request.continue_final_message else ""
    if mark:
        messages[-1]["content"] += mark
    try:
        text = model.template.render(
            messages,
            tools=model.tokenizer.guard_values(template_tools(request), keep=_SCHEMA_WORDS.__contains__),
            add_generation_prompt=not request.continue_final_message,
            variables=_variables(request, model),
        )
    except TemplateRejection as rejection:
        # A template may quote the messages, and a status must stay small.
        reason = model.tokenizer.unguard(str(rejection)).replace(mark, "")[:MAX_REJECTION_LENGTH]
        message = Message("template_rejects_messages", field="messages", model=model.id, reason=reason)
        raise invalid(message) from None
    if not mark:
        return text
    before, mark_found, _ = text.rpartition(mark)
    if not mark_found:
        message = Message("template_changes_last_message", field="continue_final_message", model=model.id)
        raise invalid(message)
    return before


def _with_one_system_message(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the messages with later system messages joined to the first one, where the template reads them."""
    later = [message for message in messages[1:] if message["role"] == "system"]
    if not later:
        return messages
    first = messages[:1] if messages[0]["role"] == "system" else []
    content = "\n\n".join(message["content"] for message in (*first, *later))
    rest = [message for message in messages if message["role"] != "system"]
    return [{"role": "system", "content": content}, *rest]


def _message(message: pb.Message, model: ServedModel) -> dict[str, Any]:
    """Return a message as templates expect it, with every text of the caller guarded.

    If an answer of a reasoning model has its reasoning in its content, before `</think>`, as some services return it,
    the reasoning becomes `reasoning_content`. Templates do the same, but cannot find the tag in guarded text.
    """
    guard = model.tokenizer.guard
    content, reasoning = _content(message, model), message.reasoning_content
    if message.role == pb.ROLE_ASSISTANT and model.spec.parsers.reasoning is not None and not reasoning:
        reasoning, content = _split_reasoning(message, content, model)
    rendered: dict[str, Any] = {"role": _ROLES[message.role], "content": content}
    texts = {"reasoning_content": reasoning, "name": message.name, "tool_call_id": message.tool_call_id}
    for name, value in texts.items():
        if value:
            rendered[name] = guard(value)
    if message.tool_calls:
        rendered["tool_calls"] = [_tool_call(call, model) for call in message.tool_calls]
    return rendered


def _split_reasoning(message: pb.Message, content: Any, model: ServedModel) -> tuple[str, Any]:
    """Return the reasoning of an answer and the rest of its content; an empty text and `content` without reasoning."""
    if not isinstance(content, str):
        return "", content
    text = "".join(part.text for part in message.content)
    before, closed, after = text.rpartition(CLOSE_TAG)
    if not closed:
        return "", content
    return before.rpartition(OPEN_TAG)[2].strip("\n"), model.tokenizer.guard(after.lstrip("\n"))


def _content(message: pb.Message, model: ServedModel) -> str | list[dict[str, str]]:
    """Return the content as text, or as a list of parts, as templates of models with vision expect it, with images."""
    guard = model.tokenizer.guard
    if not any(part.HasField("image") for part in message.content):
        return guard("".join(part.text for part in message.content))
    parts: list[dict[str, str]] = []
    for is_image, group in groupby(message.content, lambda part: part.HasField("image")):
        if is_image:
            parts += [{"type": "image"} for _ in group]
        else:
            # Joined, because templates put no text between parts: two halves of a special token would become one.
            parts.append({"type": "text", "text": guard("".join(part.text for part in group))})
    return parts


def _tool_call(call: pb.ToolCall, model: ServedModel) -> dict[str, Any]:
    # A call is text of the caller as well, and must not contain control tokens, in JSON escapes either.
    guarded = model.tokenizer.guard_values
    function = {"name": guarded(call.name), "arguments": guarded(called_arguments(call.arguments_json))}
    return {"id": guarded(call.id), "type": "function", "function": function}


def _variables(request: pb.GenerateRequest, model: ServedModel) -> dict[str, Any]:
    kwargs = json_format.MessageToDict(request.chat_template_kwargs)
    # Templates compare the values of variables with words of their own.
    variables: dict[str, Any] = model.tokenizer.guard_values(kwargs, keep=str.isidentifier)
    if sets_reasoning(request) and model.spec.capabilities.reasoning_optional:
        variables["enable_thinking"] = enables_reasoning(request, model)
    return variables
