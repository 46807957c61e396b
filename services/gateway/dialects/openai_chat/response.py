"""The object `chat.completion`, the response to a request without `stream`."""

from __future__ import annotations

from typing import Any

from services.gateway.dialects.collector import Choice, ResponseCollector
from services.gateway.dialects.dialect import ResponseHead
from services.gateway.dialects.openai_call import OpenAICall
from services.gateway.dialects.openai_chat.logprobs import logprobs_object
from services.gateway.dialects.openai_objects import FINISH_REASONS, budget_object, usage_object


def chat_completion(call: OpenAICall, head: ResponseHead, collected: ResponseCollector) -> dict[str, Any]:
    """Return the object of a complete generation. `call` needs no prompt."""
    with_logprobs = call.generate.HasField("logprobs")
    return {
        "id": head.id,
        "object": "chat.completion",
        "created": head.created,
        "model": call.generate.model,
        "choices": [
            {
                "index": index,
                "message": message_object(choice),
                "logprobs": logprobs_object(choice.logprobs) if with_logprobs else None,
                "finish_reason": FINISH_REASONS[choice.finish_reason],
            }
            for index, choice in enumerate(collected.choices)
        ],
        "usage": usage_object(collected.usage),
        **({"vilix": budget_object(collected.ended_by)} if collected.ended_by is not None else {}),
    }


def message_object(choice: Choice) -> dict[str, Any]:
    """Return the object `message` of a choice."""
    text = "".join(choice.content)
    message: dict[str, Any] = {
        "role": "assistant",
        "content": text or (None if choice.tool_calls else ""),
        "refusal": None,
    }
    if choice.reasoning:
        message["reasoning_content"] = "".join(choice.reasoning)
    if choice.tool_calls:
        message["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments_json}}
            for _, call in sorted(choice.tool_calls.items())
        ]
    return message
