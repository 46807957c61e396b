"""Translates a request of the Responses API into GenerateRequest.

Types and shapes are checked here; what values mean is checked by the worker.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from vilix.inference.v1 import inference_service_pb2 as pb

from services.gateway.dialects.dialect import ReadOptions
from services.gateway.dialects.ignored_fields import ignored_fields
from services.gateway.dialects.json_model import json_text, missing, read_model
from services.gateway.dialects.openai_responses.call import FieldPaths, ResponsesCall
from services.gateway.dialects.openai_responses.conversation import Conversation, Recalled
from services.gateway.dialects.openai_responses.request_model import (
    JsonObjectFormat,
    JsonSchemaFormat,
    ResponsesRequest,
    TextOptions,
)
from services.gateway.dialects.openai_responses.tool_choice import add_tool_choice
from services.gateway.dialects.openai_responses.tool_names import OfferedTool, Tools
from services.gateway.errors import bad_request
from services.gateway.quoting import shown
from services.runtime.messages.message import Message

ENCRYPTED: Final = "reasoning.encrypted_content"
LOGPROBS: Final = "message.output_text.logprobs"
_EFFORTS: Final = {
    "none": pb.REASONING_EFFORT_NONE,
    "minimal": pb.REASONING_EFFORT_MINIMAL,
    "low": pb.REASONING_EFFORT_LOW,
    "medium": pb.REASONING_EFFORT_MEDIUM,
    "high": pb.REASONING_EFFORT_HIGH,
    "xhigh": pb.REASONING_EFFORT_XHIGH,
    "max": pb.REASONING_EFFORT_MAX,
}
_MAX_METADATA: Final = 16
_MAX_METADATA_NAME: Final = 64
_MAX_METADATA_VALUE: Final = 512
_SAMPLING: Final = ("temperature", "top_p", "presence_penalty", "frequency_penalty")


def read_responses(body: Any, options: ReadOptions, recalled: Recalled | None = None) -> ResponsesCall:
    """Read a parsed body.

    Args:
        body: The body.
        options: How it is read.
        recalled: What the request refers to; None if that is not known yet.

    Raises:
        ApiError: A 400 that names the field, what it holds and what it must be; a 404 for an item that is not stored.
    """
    request = read_model(ResponsesRequest, body)
    _check(request)
    generate = pb.GenerateRequest(model=request.model, n=1, refuse_ignored_parameters=options.strict)
    tools = Tools()
    tools.add_all(request.tools or (), "tools")
    conversation = Conversation(generate, options.images, tools, recalled)
    if request.instructions:
        conversation.instruct(request.instructions)
    conversation.recall()
    conversation.add_all(request.input)
    conversation.join()
    if not generate.messages and (recalled is not None or not conversation.refers(request.previous_response_id)):
        raise bad_request(Message("conversation_empty", field="input"))
    generate.tools.extend(tools.functions)
    overruled = [*tools.not_offered, *conversation.ignored]
    overruled += add_tool_choice(request.tool_choice, generate, tools)
    forced = _force_custom(generate, tools)
    _add_options(request, generate, has_grammar=bool(forced))
    overruled += _unused_includes(request.include or ())
    if request.reasoning is not None and request.reasoning.generate_summary is not None:
        overruled.append("reasoning.generate_summary")
    return ResponsesCall(
        generate=generate,
        stream=request.stream or False,
        ignored=ignored_fields(request, body, overruled, strict=options.strict),
        dry_run=request.dry_run or False,
        affinity_key=request.prompt_cache_key or "",
        echo=_echo(request),
        paths=FieldPaths(
            conversation.paths,
            conversation.parts,
            conversation.calls,
            [tool.path for tool in tools.offered.values()],
            f"{tools.offered[forced].path}.format.definition" if forced else "",
        ),
        tools=tools.offered,
        forced_custom=forced,
        max_tool_calls=request.max_tool_calls,
        summary=request.reasoning is not None and request.reasoning.summary is not None,
        seals_reasoning=ENCRYPTED in (request.include or ()),
        truncates=request.truncation == "auto",
        store=request.store,
        background=request.background or False,
        previous_response_id=request.previous_response_id,
        references=list(conversation.wanted),
        sealed=conversation.sealed,
        items=conversation.items,
    )


def _check(request: ResponsesRequest) -> None:
    for name in ("conversation", "prompt"):
        if getattr(request, name) is not None:
            raise bad_request(Message("field_not_supported", field=name), code="unsupported_parameter")
    if request.input is None and request.previous_response_id is None:
        raise missing("input", "string | array")
    if request.input == []:
        raise bad_request(Message("list_empty", field="input"))
    if request.background and request.store is False:
        raise bad_request(Message("background_without_store", field="background", other_field="store"))
    metadata = request.metadata or {}
    if len(metadata) > _MAX_METADATA:
        raise bad_request(
            Message("metadata_too_many_pairs", field="metadata", value=len(metadata), limit=_MAX_METADATA)
        )
    for name, value in metadata.items():
        if len(name) > _MAX_METADATA_NAME or not isinstance(value, str) or len(value) > _MAX_METADATA_VALUE:
            raise bad_request(
                Message(
                    "metadata_pair_not_valid",
                    field="metadata",
                    name=shown(name),
                    name_limit=_MAX_METADATA_NAME,
                    value_limit=_MAX_METADATA_VALUE,
                )
            )


def _add_options(request: ResponsesRequest, generate: pb.GenerateRequest, *, has_grammar: bool) -> None:
    for name in _SAMPLING:
        value = getattr(request, name)
        if value is not None:
            setattr(generate.sampling, name, value)
    if request.max_output_tokens is not None:
        generate.sampling.max_tokens = request.max_output_tokens
    if request.parallel_tool_calls is not None:
        generate.parallel_tool_calls = request.parallel_tool_calls
    if request.max_tool_calls == 1:
        generate.parallel_tool_calls = False
    if request.reasoning is not None and request.reasoning.effort is not None:
        generate.reasoning.effort = _EFFORTS[request.reasoning.effort]
    if request.text is not None and not has_grammar:
        _add_format(request.text, generate.response_format)
    if LOGPROBS in (request.include or ()):
        generate.logprobs.SetInParent()
        generate.logprobs.top = request.top_logprobs or 0


def _add_format(text: TextOptions, response_format: pb.ResponseFormat) -> None:
    match text.format:
        case JsonObjectFormat():
            response_format.json_object.SetInParent()
        case JsonSchemaFormat() as requested:
            schema = response_format.json_schema
            schema.name, schema.description = requested.name or "", requested.description or ""
            schema.strict = requested.strict or False
            schema.schema_json = json_text("text.format.schema", requested.schema)


def _force_custom(generate: pb.GenerateRequest, tools: Tools) -> str:
    """Have the whole output match the grammar of a custom tool, if that is the only tool and must be called.

    Return the name of the function that stands for it. The function is replaced by an instruction, because the model
    writes the tool's input alone.
    """
    choice = generate.tool_choice
    names = list(choice.function_names) if choice.mode == pb.TOOL_CHOICE_MODE_FUNCTIONS else list(tools.offered)
    must = choice.required or choice.mode == pb.TOOL_CHOICE_MODE_REQUIRED
    if not must or len(names) != 1 or not (tool := tools.offered[names[0]]).syntax:
        return ""
    if tool.syntax == "regex":
        generate.response_format.regex = tool.definition
    else:
        generate.response_format.grammar = f"%llguidance {{}}\n{tool.definition}"
    choice.Clear()
    choice.mode = pb.TOOL_CHOICE_MODE_NONE
    _instruct(generate, tool)
    return names[0]


def _instruct(generate: pb.GenerateRequest, tool: OfferedTool) -> None:
    text = f"Answer with nothing but the input of the tool {tool.name}. {tool.description}".strip()
    if generate.messages and generate.messages[0].role == pb.ROLE_SYSTEM:
        generate.messages[0].content[0].text += f"\n\n{text}"
    else:
        # A message of the user keeps the positions of all messages.
        generate.messages.add(role=pb.ROLE_USER).content.add(text=text)


def _unused_includes(include: Sequence[str]) -> list[str]:
    return [f"include[{index}]" for index, name in enumerate(include) if name not in (ENCRYPTED, LOGPROBS)]


def _echo(request: ResponsesRequest) -> dict[str, Any]:
    """Return the fields of the response object that repeat the request. None of them is absent."""
    reasoning, text = request.reasoning, request.text
    options: dict[str, Any] = {"format": {"type": "text"}}
    if text is not None and isinstance(text.format, JsonObjectFormat):
        options["format"] = {"type": "json_object"}
    elif text is not None and isinstance(text.format, JsonSchemaFormat):
        options["format"] = {
            "type": "json_schema",
            "name": text.format.name,
            "description": text.format.description,
            "schema": text.format.schema,
            "strict": text.format.strict or False,
        }
    if text is not None and text.verbosity is not None:
        options["verbosity"] = text.verbosity
    return {
        "previous_response_id": request.previous_response_id,
        "instructions": request.instructions,
        "tools": [_tool(tool) for tool in request.tools or ()],
        "tool_choice": request.tool_choice or "auto",
        "truncation": request.truncation or "disabled",
        "parallel_tool_calls": True if request.parallel_tool_calls is None else request.parallel_tool_calls,
        "text": options,
        "top_p": 1.0 if request.top_p is None else request.top_p,
        "presence_penalty": request.presence_penalty or 0.0,
        "frequency_penalty": request.frequency_penalty or 0.0,
        "top_logprobs": request.top_logprobs or 0,
        "temperature": 1.0 if request.temperature is None else request.temperature,
        "reasoning": {
            "effort": None if reasoning is None else reasoning.effort,
            "summary": None if reasoning is None else reasoning.summary,
        },
        "max_output_tokens": request.max_output_tokens,
        "max_tool_calls": request.max_tool_calls,
        "background": request.background or False,
        "service_tier": "default",
        "metadata": request.metadata or {},
        "safety_identifier": request.safety_identifier,
        "prompt_cache_key": request.prompt_cache_key,
        "user": request.user,
    }


def _tool(tool: dict[str, Any]) -> dict[str, Any]:
    """Return a tool as the response repeats it: a function has all its fields."""
    if tool.get("type") != "function":
        return tool
    return {
        "type": "function",
        "name": tool["name"],
        "description": tool.get("description"),
        "parameters": tool.get("parameters"),
        "strict": tool.get("strict") or False,
    }
