"""Reads OpenAI's chat request into GenerateRequest. Types and shapes are checked here; what they mean, in the worker."""

from __future__ import annotations

from typing import Any, Final

from google.protobuf import json_format
from vilix.inference.v1 import inference_service_pb2 as pb

from services.gateway.dialects.dialect import ImageSink, ReadOptions
from services.gateway.dialects.json_fields import Fields, json_text, wrong_type
from services.gateway.dialects.openai_call import OpenAICall, completed
from services.gateway.dialects.openai_sampling import add_sampling
from services.gateway.errors import bad_request
from services.gateway.quoting import shown

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
_MAX_VARIABLES_LENGTH: Final = 16_384
_MAX_VARIABLES_DEPTH: Final = 16
_LABELS: Final = ("user", "safety_identifier", "prompt_cache_key")
"""They influence no answer anywhere."""
_WISHES: Final[dict[str, tuple[Any, ...]]] = {
    "store": (False,),
    "service_tier": ("auto", "default"),
    "verbosity": ("medium",),
    "prompt_cache_retention": ("in-memory", "in_memory"),
}
"""Fields that are ignored, unless they ask for what is done anyway."""
_REJECTED: Final = {
    "audio": "audio is not available here; leave it out",
    "functions": "functions was replaced by tools; send tools",
    "function_call": "function_call was replaced by tool_choice; send tool_choice",
    "web_search_options": "web_search_options is not available here; leave it out",
}


def read_chat(body: Any, options: ReadOptions) -> OpenAICall:
    """Read a parsed body. Raises ApiError (400) that names the field, what it holds and what it must be."""
    fields = Fields(body)
    generate = pb.GenerateRequest(
        model=fields.required_string("model"),
        n=fields.integer("n", least=1) or 1,
        continue_final_message=fields.boolean("continue_final_message") or False,
        refuse_ignored_parameters=options.strict,
    )
    for name, message in _REJECTED.items():
        if fields.get(name) is not None:
            raise bad_request(name, message, code="unsupported_parameter")
    for name in _LABELS:
        fields.string(name)
    for name, granted in _WISHES.items():
        fields.granted(name, *granted)
    # What vLLM's clients send so that the last message is continued.
    fields.granted("add_generation_prompt", not generate.continue_final_message)
    _check_metadata(fields)
    if fields.strings("modalities") not in (None, ["text"]):
        raise bad_request("modalities", f"modalities is {shown(fields.get('modalities'))}; only text is available here")
    _add_messages(fields, generate, options.images)
    add_sampling(fields, generate.sampling)
    _add_logprobs(fields, generate)
    _add_tools(fields, generate)
    _add_reasoning(fields, generate)
    return completed(fields, generate, strict=options.strict)


def _check_metadata(fields: Fields) -> None:
    metadata = fields.get("metadata")
    if metadata is None:
        return
    if not isinstance(metadata, dict):
        raise wrong_type("metadata", "an object", metadata)
    if len(metadata) > 16:
        raise bad_request("metadata", f"metadata has {len(metadata)} pairs; at most 16 are allowed")
    for name, value in metadata.items():
        if len(name) > 64 or not isinstance(value, str) or len(value) > 512:
            raise bad_request(
                "metadata",
                f"metadata.{name[:64]}: a name has at most 64 characters, and its value is a string of at most 512",
            )


def _add_messages(fields: Fields, generate: pb.GenerateRequest, images: ImageSink) -> None:
    if fields.array("messages") is None:
        raise bad_request("messages", "messages is missing; it must be a list of at least one message")
    for message in fields.objects("messages"):
        role = message.one_of("role", *_ROLES)
        if role is None:
            raise bad_request(
                message.path("role"), f"{message.path('role')} is missing; it must be one of {', '.join(_ROLES)}"
            )
        reasoning, newer = message.string("reasoning_content"), message.string("reasoning")
        if reasoning and newer and newer != reasoning:
            message.overruled("reasoning")
        translated = generate.messages.add(
            role=_ROLES[role],
            name=message.string("name") or "",
            reasoning_content=reasoning or newer or "",
            tool_call_id=message.string("tool_call_id") or "",
        )
        _add_content(message, translated, images)
        _add_calls(message, translated)
    if not generate.messages:
        raise bad_request("messages", "messages is empty; it must hold at least one message")


def _add_calls(message: Fields, translated: pb.Message) -> None:
    for call in message.objects("tool_calls"):
        kind, function = call.string("type"), call.object("function")
        # Deltas of a stream that a client has joined still say where in the list they belong.
        call.get("index")
        if kind not in (None, "function"):
            raise bad_request(
                call.path("type"), f"{call.path('type')} is {shown(kind)}; only function tools are available here"
            )
        if function is None:
            raise bad_request(call.path("function"), f"{call.path('function')} is missing")
        _add_call(function, translated, call_id=call.string("id") or "")
    older = message.object("function_call")
    if older is not None:
        if translated.tool_calls:
            newer, path = message.path("tool_calls"), message.path("function_call")
            raise bad_request(path, f"{newer} and {path} exclude one another; send one of them")
        _add_call(older, translated, call_id="")
    if message.get("audio") is not None:
        path = message.path("audio")
        raise bad_request(path, f"{path} is not available here; leave it out", code="unsupported_parameter")


def _add_call(function: Fields, translated: pb.Message, *, call_id: str) -> None:
    translated.tool_calls.add(
        id=call_id, name=function.required_string("name"), arguments_json=function.string("arguments") or ""
    )


def _add_content(message: Fields, translated: pb.Message, images: ImageSink) -> None:
    content = message.get("content")
    if isinstance(content, str):
        if content:
            translated.content.add(text=content)
    elif isinstance(content, list):
        for part in message.objects("content"):
            _add_part(part, translated, images)
    elif content is not None:
        raise wrong_type(message.path("content"), "a string or a list of parts", content)
    if content is None and translated.role != pb.ROLE_ASSISTANT:
        raise bad_request(
            message.path("content"), f"{message.path('content')} is missing; it must be a string or a list of parts"
        )
    if content in ("", []):
        translated.content.add(text="")


def _add_part(part: Fields, translated: pb.Message, images: ImageSink) -> None:
    kind = part.required_string("type")
    if kind == "text":
        translated.content.add(text=part.required_string("text"))
    elif kind == "image_url":
        _add_image(part, translated, images)
    else:
        raise bad_request(
            part.path("type"), f"{part.path('type')} is {shown(kind)}; only text and image_url are available here"
        )


def _add_image(part: Fields, translated: pb.Message, images: ImageSink) -> None:
    given = part.object("image_url")
    if given is None:
        raise bad_request(part.path("image_url"), f"{part.path('image_url')} is missing")
    detail = given.one_of("detail", "auto", "low", "high")
    url = given.required_string("url")
    image = translated.content.add(image=pb.Image(detail=_DETAILS[detail])).image
    images.add(image, url=url, path=given.path("url"), part=part.path("image_url"))


def _add_logprobs(fields: Fields, generate: pb.GenerateRequest) -> None:
    wanted, top = fields.boolean("logprobs"), fields.integer("top_logprobs")
    if top and not wanted:
        raise bad_request("top_logprobs", "top_logprobs needs logprobs to be true")
    if wanted:
        generate.logprobs.SetInParent()
        generate.logprobs.top = top or 0


def _add_tools(fields: Fields, generate: pb.GenerateRequest) -> None:
    for tool in fields.objects("tools"):
        kind = tool.required_string("type")
        function = tool.object("function")
        if kind != "function" or function is None:
            raise bad_request(
                tool.path("type"), f"{tool.path('type')} is {shown(kind)}; only function tools are available here"
            )
        parameters = function.get("parameters")
        if parameters is not None and not isinstance(parameters, dict):
            raise wrong_type(function.path("parameters"), "an object", parameters)
        generate.tools.add(
            name=function.required_string("name"),
            description=function.string("description") or "",
            parameters_json="" if parameters is None else json_text(function.path("parameters"), parameters),
            strict=function.boolean("strict") or False,
        )
    parallel = fields.boolean("parallel_tool_calls")
    if parallel is not None:
        generate.parallel_tool_calls = parallel
    _add_tool_choice(fields, generate.tool_choice)


def _add_tool_choice(fields: Fields, choice: pb.ToolChoice) -> None:
    value = fields.get("tool_choice")
    modes = {
        "none": pb.TOOL_CHOICE_MODE_NONE,
        "auto": pb.TOOL_CHOICE_MODE_AUTO,
        "required": pb.TOOL_CHOICE_MODE_REQUIRED,
    }
    if isinstance(value, str):
        if value not in modes:
            raise bad_request(
                "tool_choice", f"tool_choice is {shown(value)}; it must be one of {', '.join(modes)}, or an object"
            )
        choice.mode = modes[value]
        return
    named = fields.object("tool_choice")
    if named is None:
        return
    kind = named.one_of("type", "function", "allowed_tools")
    choice.mode = pb.TOOL_CHOICE_MODE_FUNCTIONS
    if kind == "allowed_tools":
        allowed = named.object("allowed_tools") or named
        choice.required = allowed.one_of("mode", "auto", "required") == "required"
        for tool in allowed.objects("tools"):
            tool.one_of("type", "function")
            choice.function_names.append((tool.object("function") or tool).required_string("name"))
    else:
        choice.required = True
        choice.function_names.append((named.object("function") or named).required_string("name"))


def _add_reasoning(fields: Fields, generate: pb.GenerateRequest) -> None:
    effort = fields.one_of("reasoning_effort", *_EFFORTS)
    if effort is not None:
        generate.reasoning.effort = _EFFORTS[effort]
    budget = fields.integer("thinking_token_budget")
    if budget is not None:
        generate.reasoning.budget_tokens = budget
    if fields.boolean("include_reasoning") is False:
        generate.reasoning.exclude = True
    enabled = fields.boolean("enable_thinking")
    variables = fields.get("chat_template_kwargs")
    if variables is not None:
        enabled_there = Fields(variables, "chat_template_kwargs").boolean("enable_thinking")
        if enabled_there is not None:
            if enabled not in (None, enabled_there):
                fields.overruled("enable_thinking")
            enabled = enabled_there
        others = {name: value for name, value in variables.items() if name != "enable_thinking"}
        _check_variables(others)
        json_format.ParseDict(others, generate.chat_template_kwargs)
    if enabled is not None:
        generate.reasoning.enabled = enabled


def _check_variables(variables: dict[str, Any]) -> None:
    """Raises ApiError for what would be slow to translate, or would be too deep for the worker's parser."""
    path = "chat_template_kwargs"
    size = len(json_text(path, variables))
    if size > _MAX_VARIABLES_LENGTH:
        raise bad_request(path, f"{path} is {size} characters long; at most {_MAX_VARIABLES_LENGTH} are allowed")
    level: list[Any] = [variables]
    for _ in range(_MAX_VARIABLES_DEPTH):
        level = [
            inner
            for value in level
            for inner in (value.values() if isinstance(value, dict) else value)
            if isinstance(inner, dict | list)
        ]
    if level:
        raise bad_request(path, f"{path} is nested too deeply; at most {_MAX_VARIABLES_DEPTH} levels are allowed")
