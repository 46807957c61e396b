"""The object `chat.completion`, the response to a request without `stream`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vilix.inference.v1 import inference_service_pb2 as pb

from services.gateway.dialects.collector import Choice, ResponseCollector
from services.gateway.dialects.dialect import ResponseHead
from services.gateway.dialects.openai_chat.functions import FINISH_REASON, function_call
from services.gateway.dialects.openai_chat.logprobs import logprobs_object
from services.gateway.dialects.openai_chat.request import ChatCall
from services.gateway.dialects.openai_objects import FINISH_REASONS, budget_object, head_object, usage_object


def chat_completion(
    call: ChatCall, head: ResponseHead, collected: ResponseCollector, *, reasoning_fields: Sequence[str]
) -> dict[str, Any]:
    """Return the object of a complete generation, with reasoning in each of `reasoning_fields`.

    `call` needs no prompt.
    """
    with_logprobs = call.generate.HasField("logprobs")
    return {
        **head_object("chat.completion", head, call.generate.model),
        "choices": [
            {
                "index": index,
                "message": message_object(choice, reasoning_fields, has_functions=call.has_functions),
                "logprobs": logprobs_object(choice.logprobs) if with_logprobs else None,
                "finish_reason": finish_reason(choice.finish_reason, has_functions=call.has_functions),
            }
            for index, choice in enumerate(collected.choices)
        ],
        "usage": usage_object(collected.usage),
        **({"vilix": budget_object(collected.ended_by)} if collected.ended_by is not None else {}),
    }


def finish_reason(reason: pb.FinishReason.ValueType, *, has_functions: bool) -> str:
    """Return OpenAI's word for the reason; `has_functions` says that it is in the older notation of calls."""
    if has_functions and reason == pb.FINISH_REASON_TOOL_CALLS:
        return FINISH_REASON
    return FINISH_REASONS[reason]


def message_object(choice: Choice, reasoning_fields: Sequence[str], *, has_functions: bool = False) -> dict[str, Any]:
    """Return the object `message` of a choice, with reasoning in each of `reasoning_fields`.

    `has_functions` says that calls are in the older notation.
    """
    text = "".join(choice.content)
    message: dict[str, Any] = {
        "role": "assistant",
        "content": text or (None if choice.tool_calls else ""),
        "refusal": None,
        "annotations": [],
    }
    if choice.reasoning:
        message |= dict.fromkeys(reasoning_fields, "".join(choice.reasoning))
    if choice.tool_calls and has_functions:
        _, call = min(choice.tool_calls.items())
        message["function_call"] = function_call(call.name, call.arguments_json)
    elif choice.tool_calls:
        message["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments_json}}
            for _, call in sorted(choice.tool_calls.items())
        ]
    return message
