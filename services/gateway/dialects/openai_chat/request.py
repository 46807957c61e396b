"""Translates OpenAI's chat completion request into GenerateRequest.

Types and shapes are checked here; what values mean is checked by the worker.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from google.protobuf import json_format
from vilix.inference.v1 import inference_service_pb2 as pb

from services.gateway.dialects.dialect import ImageSink, ReadOptions
from services.gateway.dialects.json_model import json_text, missing, read_model, wrong_type
from services.gateway.dialects.openai_call import OpenAICall, finish_call
from services.gateway.dialects.openai_chat.functions import add_functions, function_field
from services.gateway.dialects.openai_chat.message_model import CalledFunction, ImagePart, TextPart
from services.gateway.dialects.openai_chat.message_model import Message as ChatMessage
from services.gateway.dialects.openai_chat.request_model import AllowedTool, ChatCompletionRequest, ToolChoice
from services.gateway.dialects.openai_sampling import add_sampling
from services.gateway.errors import ApiError, bad_request
from services.gateway.quoting import shown
from services.runtime.messages.message import Message

_ROLES: Final = {
    "system": pb.ROLE_SYSTEM,
    "developer": pb.ROLE_SYSTEM,
    "user": pb.ROLE_USER,
    "assistant": pb.ROLE_ASSISTANT,
    "tool": pb.ROLE_TOOL,
    "function": pb.ROLE_TOOL,
}
_EFFORTS: Final = {
    "none": pb.REASONING_EFFORT_NONE,
    "minimal": pb.REASONING_EFFORT_MINIMAL,
    "low": pb.REASONING_EFFORT_LOW,
    "medium": pb.REASONING_EFFORT_MEDIUM,
    "high": pb.REASONING_EFFORT_HIGH,
    "xhigh": pb.REASONING_EFFORT_XHIGH,
    "max": pb.REASONING_EFFORT_MAX,
}
_DETAILS: Final = {
    None: pb.IMAGE_DETAIL_UNSPECIFIED,
    "auto": pb.IMAGE_DETAIL_AUTO,
    "low": pb.IMAGE_DETAIL_LOW,
    "high": pb.IMAGE_DETAIL_HIGH,
}
_MODES: Final = {
    "none": pb.TOOL_CHOICE_MODE_NONE,
    "auto": pb.TOOL_CHOICE_MODE_AUTO,
    "required": pb.TOOL_CHOICE_MODE_REQUIRED,
}
_MAX_VARIABLES_LENGTH: Final = 16_384
_MAX_VARIABLES_DEPTH: Final = 16
_MAX_METADATA: Final = 16
_MAX_METADATA_NAME: Final = 64
_MAX_METADATA_VALUE: Final = 512


@dataclass(frozen=True, kw_only=True)
class ChatCall(OpenAICall):
    """A call for the answer to a conversation."""

    has_functions: bool = False
    """Whether functions are in OpenAI's older notation, in which the answer is, too."""

    def field_name(self, field: str) -> str:
        """Return OpenAI's name for the path of a worker's field."""
        name = super().field_name(field)
        return function_field(name) if self.has_functions else name


def read_chat(body: Any, options: ReadOptions) -> ChatCall:
    """Read a parsed body.

    Raises:
        ApiError: A 400 that names the field, what it holds and what it must be.
    """
    request = read_model(ChatCompletionRequest, body)
    _check_unavailable(request)
    if request.metadata is not None:
        _check_metadata(request.metadata)
    generate = pb.GenerateRequest(
        model=request.model,
        n=request.n or 1,
        continue_final_message=request.continue_final_message or False,
        refuse_ignored_parameters=options.strict,
    )
    overruled_fields: list[str] = []
    # What vLLM's clients send so that the last message is continued.
    if request.add_generation_prompt not in (None, not generate.continue_final_message):
        overruled_fields.append("add_generation_prompt")
    for index, message in enumerate(request.messages):
        _add_message(generate, message, f"messages[{index}]", options.images, overruled_fields)
    add_sampling(request, generate.sampling, overruled_fields)
    _add_logprobs(request, generate)
    _add_tools(request, generate, overruled_fields)
    has_functions = add_functions(request, generate, overruled_fields)
    _add_reasoning(request, generate, overruled_fields)
    return finish_call(
        ChatCall, request, body, generate, overruled_fields, strict=options.strict, has_functions=has_functions
    )


def _check_unavailable(request: ChatCompletionRequest) -> None:
    """Raise ApiError for a request for what no model here can do, so that an answer would miss what it is about."""
    if request.modalities is not None and set(request.modalities) != {"text"}:
        message = Message("modality_not_supported", field="modalities", value=shown(request.modalities))
    elif request.audio is not None:
        message = Message("audio_not_available", field="audio", other_field="modalities")
    elif request.web_search_options is not None:
        message = Message("web_search_not_available", field="web_search_options", other_field="tools")
    else:
        return
    raise bad_request(message, code="unsupported_parameter")


def _check_metadata(metadata: dict[str, Any]) -> None:
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


def _add_message(
    generate: pb.GenerateRequest, message: ChatMessage, path: str, images: ImageSink, overruled_fields: list[str]
) -> None:
    reasoning, newer = message.reasoning_content, message.reasoning
    if reasoning and newer and newer != reasoning:
        overruled_fields.append(f"{path}.reasoning")
    translated = generate.messages.add(
        role=_ROLES[message.role],
        name=message.name or "",
        reasoning_content=reasoning or newer or "",
        tool_call_id=message.tool_call_id or "",
    )
    _add_content(message, translated, path, images)
    for call in message.tool_calls or ():
        _add_call(call.function, translated, call_id=call.id or "")
    if message.function_call is not None and translated.tool_calls:
        overruled_fields.append(f"{path}.function_call")
    elif message.function_call is not None:
        _add_call(message.function_call, translated, call_id="")
    if message.audio is not None:
        raise _not_supported(f"{path}.audio")


def _add_call(function: CalledFunction, translated: pb.Message, *, call_id: str) -> None:
    translated.tool_calls.add(id=call_id, name=function.name, arguments_json=function.arguments or "")


def _add_content(message: ChatMessage, translated: pb.Message, path: str, images: ImageSink) -> None:
    content = message.content
    if isinstance(content, str):
        translated.content.add(text=content)
    elif content:
        for index, part in enumerate(content):
            if isinstance(part, TextPart):
                translated.content.add(text=part.text)
            else:
                _add_image(part, translated, f"{path}.content[{index}].image_url", images)
    elif content is not None:
        translated.content.add(text="")
    elif translated.role != pb.ROLE_ASSISTANT:
        raise missing(f"{path}.content", "string | array")


def _add_image(part: ImagePart, translated: pb.Message, path: str, images: ImageSink) -> None:
    image = translated.content.add(image=pb.Image(detail=_DETAILS[part.image_url.detail])).image
    images.add(image, url=part.image_url.url, path=f"{path}.url", part=path)


def _add_logprobs(request: ChatCompletionRequest, generate: pb.GenerateRequest) -> None:
    if request.top_logprobs and not request.logprobs:
        message = Message(
            "top_logprobs_without_logprobs",
            field="top_logprobs",
            other_field="logprobs",
            value=request.top_logprobs,
        )
        raise bad_request(message)
    if request.logprobs:
        generate.logprobs.SetInParent()
        generate.logprobs.top = request.top_logprobs or 0


def _add_tools(request: ChatCompletionRequest, generate: pb.GenerateRequest, overruled_fields: list[str]) -> None:
    for index, tool in enumerate(request.tools or ()):
        function = tool.function
        schema = function.parameters
        generate.tools.add(
            name=function.name,
            description=function.description or "",
            parameters_json="" if schema is None else json_text(f"tools[{index}].function.parameters", schema),
            strict=function.strict or False,
        )
    if request.parallel_tool_calls is not None:
        generate.parallel_tool_calls = request.parallel_tool_calls
    if isinstance(request.tool_choice, ToolChoice):
        _add_tool_choice(request.tool_choice, generate.tool_choice, overruled_fields)
    elif request.tool_choice is not None:
        generate.tool_choice.mode = _MODES[request.tool_choice]


def _add_tool_choice(requested: ToolChoice, choice: pb.ToolChoice, overruled_fields: list[str]) -> None:
    choice.mode = pb.TOOL_CHOICE_MODE_FUNCTIONS
    allowed = requested.allowed_tools or requested
    path = "tool_choice.allowed_tools" if requested.allowed_tools else "tool_choice"
    beside: list[str] = []
    names = [_function_name(tool, f"{path}.tools[{index}]", beside) for index, tool in enumerate(allowed.tools or ())]
    if requested.type == "allowed_tools":
        choice.required = allowed.mode == "required"
        choice.function_names.extend(names)
        overruled_fields += beside
        unused = ["function", "name", *(["mode", "tools"] if requested.allowed_tools else [])]
    else:
        choice.required = True
        choice.function_names.append(_function_name(requested, "tool_choice", overruled_fields))
        unused = ["allowed_tools", "mode", "tools"]
    overruled_fields += [f"tool_choice.{name}" for name in unused if getattr(requested, name) is not None]


def _function_name(named: ToolChoice | AllowedTool, path: str, overruled_fields: list[str]) -> str:
    if named.function is not None:
        if named.name is not None:
            overruled_fields.append(f"{path}.name")
        return named.function.name
    if named.name is None:
        raise missing(f"{path}.name", "string")
    return named.name


def _add_reasoning(request: ChatCompletionRequest, generate: pb.GenerateRequest, overruled_fields: list[str]) -> None:
    if request.reasoning_effort is not None:
        generate.reasoning.effort = _EFFORTS[request.reasoning_effort]
    if request.thinking_token_budget is not None:
        generate.reasoning.budget_tokens = request.thinking_token_budget
    if request.include_reasoning is False:
        generate.reasoning.exclude = True
    enabled = request.enable_thinking
    if request.chat_template_kwargs is not None:
        variables = dict(request.chat_template_kwargs)
        enabled_there = variables.pop("enable_thinking", None)
        if enabled_there is not None:
            if not isinstance(enabled_there, bool):
                raise wrong_type("chat_template_kwargs.enable_thinking", "boolean", enabled_there)
            if enabled not in (None, enabled_there):
                overruled_fields.append("enable_thinking")
            enabled = enabled_there
        _check_variables(variables)
        json_format.ParseDict(variables, generate.chat_template_kwargs)
    if enabled is not None:
        generate.reasoning.enabled = enabled


def _check_variables(variables: dict[str, Any]) -> None:
    """Raise ApiError for values that would take long to translate, or that are too deep for the worker's parser."""
    path = "chat_template_kwargs"
    size = len(json_text(path, variables))
    if size > _MAX_VARIABLES_LENGTH:
        raise bad_request(Message("text_too_long", field=path, value=size, limit=_MAX_VARIABLES_LENGTH))
    level: list[Any] = [variables]
    for _ in range(_MAX_VARIABLES_DEPTH):
        level = [
            inner
            for value in level
            for inner in (value.values() if isinstance(value, dict) else value)
            if isinstance(inner, dict | list)
        ]
    if level:
        raise bad_request(Message("nested_too_deeply", field=path, limit=_MAX_VARIABLES_DEPTH))


def _not_supported(field: str) -> ApiError:
    """Return the error of a field of OpenAI's that is not supported."""
    return bad_request(Message("field_not_supported", field=field), code="unsupported_parameter")
