"""The object `message`, the response to a request without `stream`."""

from __future__ import annotations

from typing import Any

import orjson

from services.gateway.dialects.anthropic_messages.call import MessagesCall
from services.gateway.dialects.anthropic_messages.objects import (
    budget_fields,
    message_object,
    stop_object,
    text_block,
    thinking_block,
    tool_use_block,
    usage_object,
)
from services.gateway.dialects.anthropic_messages.thinking import ThinkingSignatures
from services.gateway.dialects.collector import Choice, ResponseCollector, ToolCall
from services.gateway.dialects.dialect import ResponseHead


def whole_message(
    call: MessagesCall, head: ResponseHead, collected: ResponseCollector, signatures: ThinkingSignatures
) -> dict[str, Any]:
    """Return the object of a complete generation. `call` needs no prompt."""
    choice = collected.choices[0]
    return message_object(
        call,
        head,
        usage=usage_object(collected.usage),
        content=_content(call, choice, signatures),
        **stop_object(choice.finish_reason, choice.stop_string, is_clamped=collected.is_clamped),
        **budget_fields(collected.ended_by),
    )


def _content(call: MessagesCall, choice: Choice, signatures: ThinkingSignatures) -> list[dict[str, Any]]:
    blocks: list[dict[str, Any]] = []
    if thinking := "".join(choice.reasoning):
        signature = signatures.write(call.tenant, call.generate.model, thinking, is_hidden=call.hides_thinking)
        blocks.append(thinking_block("" if call.hides_thinking else thinking, signature))
    if text := "".join(choice.content):
        blocks.append(text_block(text))
    calls = (tool_call for _, tool_call in sorted(choice.tool_calls.items()))
    return [*blocks, *(tool_use_block(made.id, made.name, _input(made)) for made in calls)]


def _input(call: ToolCall) -> dict[str, Any]:
    """Return the input of a call; an empty object for a call that was cut off."""
    try:
        arguments = orjson.loads(call.arguments_json or "{}")
    except orjson.JSONDecodeError:
        return {}
    return arguments if isinstance(arguments, dict) else {}
