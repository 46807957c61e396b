"""Translates Anthropic's Messages request into GenerateRequest.

Types and shapes are checked here; what values mean is checked by the worker.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from vilix.inference.v1 import inference_service_pb2 as pb

from services.gateway.dialects.anthropic_messages.call import MessagesCall
from services.gateway.dialects.anthropic_messages.client_tools import client_tool
from services.gateway.dialects.anthropic_messages.content_model import FOREIGN_BLOCKS
from services.gateway.dialects.anthropic_messages.conversation import Conversation
from services.gateway.dialects.anthropic_messages.request_model import (
    CountTokensRequest,
    MessagesRequest,
    ThinkingAdaptive,
    ThinkingBetweenTools,
    ThinkingDisabled,
    ThinkingEnabled,
    Tool,
)
from services.gateway.dialects.anthropic_messages.thinking import ThinkingSignatures
from services.gateway.dialects.dialect import ReadOptions
from services.gateway.dialects.ignored_fields import ignored_fields
from services.gateway.dialects.json_model import json_text, missing, read_model
from services.gateway.errors import bad_request
from services.runtime.messages.message import Message

_EFFORTS: Final = {
    "none": pb.REASONING_EFFORT_NONE,
    "minimal": pb.REASONING_EFFORT_MINIMAL,
    "low": pb.REASONING_EFFORT_LOW,
    "medium": pb.REASONING_EFFORT_MEDIUM,
    "high": pb.REASONING_EFFORT_HIGH,
    "xhigh": pb.REASONING_EFFORT_XHIGH,
    "max": pb.REASONING_EFFORT_MAX,
}
_MODES: Final = {
    "auto": pb.TOOL_CHOICE_MODE_AUTO,
    "any": pb.TOOL_CHOICE_MODE_REQUIRED,
    "none": pb.TOOL_CHOICE_MODE_NONE,
}


def read_messages(body: Any, options: ReadOptions, signatures: ThinkingSignatures) -> MessagesCall:
    """Read the parsed body of POST /messages. Raises ApiError (400)."""
    overruled = _leave_out_foreign_blocks(body)
    request = read_model(MessagesRequest, body)
    generate = pb.GenerateRequest(model=request.model, clamp_max_tokens=True, prefill_only=request.max_tokens == 0)
    sampling = generate.sampling
    sampling.max_tokens = max(request.max_tokens, 1)
    for name in ("temperature", "top_p", "top_k"):
        if (value := getattr(request, name)) is not None:
            setattr(sampling, name, value)
    sampling.stop.extend(request.stop_sequences or ())
    call = _call(request, body, generate, options, signatures=signatures, overruled=overruled)
    return replace(call, stream=request.stream or False, prefill_only=generate.prefill_only)


def read_count_tokens(body: Any, options: ReadOptions, signatures: ThinkingSignatures) -> MessagesCall:
    """Read the parsed body of POST /messages/count_tokens. Raises ApiError (400)."""
    overruled = _leave_out_foreign_blocks(body)
    request = read_model(CountTokensRequest, body)
    generate = pb.GenerateRequest(model=request.model)
    return _call(request, body, generate, options, signatures=signatures, overruled=overruled)


def _leave_out_foreign_blocks(body: Any) -> list[str]:
    """Replace blocks about tools of Anthropic's servers by empty text, and return their paths."""
    messages = body.get("messages") if isinstance(body, dict) else None
    paths: list[str] = []
    for index, message in enumerate(messages if isinstance(messages, list) else ()):
        content = message.get("content") if isinstance(message, dict) else None
        if isinstance(content, list):
            _replace_foreign(content, f"messages[{index}].content", paths)
    return paths


def _replace_foreign(content: list[Any], path: str, paths: list[str]) -> None:
    for index, block in enumerate(content):
        if not isinstance(block, dict):
            continue
        kind = block.get("type")
        if isinstance(kind, str) and kind in FOREIGN_BLOCKS:
            content[index] = {"type": "text", "text": ""}
            paths.append(f"{path}[{index}]")
        elif kind == "tool_result" and isinstance(block.get("content"), list):
            _replace_foreign(block["content"], f"{path}[{index}].content", paths)


def _call(
    request: CountTokensRequest,
    body: Mapping[str, Any],
    generate: pb.GenerateRequest,
    options: ReadOptions,
    *,
    signatures: ThinkingSignatures,
    overruled: list[str],
) -> MessagesCall:
    generate.refuse_ignored_parameters = options.strict
    conversation = Conversation(generate, options.images, signatures.reader(options.tenant, generate.model))
    conversation.add_system(request.system)
    for index, message in enumerate(request.messages):
        conversation.add(message, f"messages[{index}]")
    conversation.finish()
    if not generate.messages:
        raise bad_request(Message("conversation_empty", field="messages"))
    overruled += conversation.left_out
    tools = _add_tools(request, generate, overruled)
    _add_thinking(request, generate, overruled)
    _add_output_format(request, generate)
    return MessagesCall(
        generate=generate,
        ignored=ignored_fields(request, body, overruled, strict=options.strict),
        origins=tuple(conversation.origins),
        tools=tuple(tools),
        tenant=options.tenant,
        hides_thinking=_hides_thinking(request),
        sets_thinking=request.thinking is not None,
        omitted=conversation.omitted,
    )


def _add_tools(request: CountTokensRequest, generate: pb.GenerateRequest, overruled: list[str]) -> list[int]:
    """Add the tools that a client runs, and return their indexes in the request."""
    indexes: list[int] = []
    for index, tool in enumerate(request.tools or ()):
        path = f"tools[{index}]"
        if _add_tool(tool, generate, path):
            indexes.append(index)
        else:
            overruled.append(path)
    _add_tool_choice(request, generate)
    return indexes


def _add_tool(tool: Tool, generate: pb.GenerateRequest, path: str) -> bool:
    description, schema = tool.description or "", tool.input_schema
    if tool.type not in (None, "custom"):
        known = client_tool(tool.type or "")
        if known is None:
            return False
        description, schema = known
    if not tool.name:
        raise missing(f"{path}.name", "string")
    if schema is None:
        raise missing(f"{path}.input_schema", "object")
    generate.tools.add(
        name=tool.name,
        description=description,
        parameters_json=json_text(f"{path}.input_schema", schema),
        strict=tool.strict or False,
    )
    return True


def _add_tool_choice(request: CountTokensRequest, generate: pb.GenerateRequest) -> None:
    choice = request.tool_choice
    if choice is None:
        return
    if choice.disable_parallel_tool_use is not None:
        generate.parallel_tool_calls = not choice.disable_parallel_tool_use
    if choice.type != "tool":
        generate.tool_choice.mode = _MODES[choice.type]
        return
    if not choice.name:
        raise missing("tool_choice.name", "string")
    generate.tool_choice.mode = pb.TOOL_CHOICE_MODE_FUNCTIONS
    generate.tool_choice.required = True
    generate.tool_choice.function_names.append(choice.name)


def _add_thinking(request: CountTokensRequest, generate: pb.GenerateRequest, overruled: list[str]) -> None:
    """Set whether the model thinks: only if the request asks for it, as in Anthropic's API."""
    reasoning, thinking = generate.reasoning, request.thinking
    reasoning.if_supported = True
    match thinking:
        case ThinkingEnabled(budget_tokens=budget):
            reasoning.enabled = True
            if budget is not None:
                reasoning.budget_tokens = budget
        case ThinkingAdaptive():
            reasoning.enabled = True
        case ThinkingBetweenTools():
            reasoning.enabled = bool(generate.messages) and generate.messages[-1].role == pb.ROLE_TOOL
        case ThinkingDisabled() | None:
            reasoning.enabled = False
    effort = request.output_config.effort if request.output_config is not None else None
    if effort is not None and reasoning.enabled:
        reasoning.effort = _EFFORTS[effort]
    elif effort not in (None, "none"):
        overruled.append("output_config.effort")


def _hides_thinking(request: CountTokensRequest) -> bool:
    thinking = request.thinking
    return isinstance(thinking, ThinkingEnabled | ThinkingAdaptive) and thinking.display == "omitted"


def _add_output_format(request: CountTokensRequest, generate: pb.GenerateRequest) -> None:
    newer = request.output_config.format if request.output_config is not None else None
    older = request.output_format
    if newer is not None and older is not None:
        raise bad_request(Message("mutually_exclusive", field="output_format", other_field="output_config.format"))
    path = "output_format.schema" if newer is None else "output_config.format.schema"
    if (requested := newer or older) is not None:
        generate.response_format.json_schema.schema_json = json_text(path, requested.schema)
