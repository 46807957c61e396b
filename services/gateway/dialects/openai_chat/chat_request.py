"""Translates OpenAI's chat request into GenerateRequest. Types and shapes are checked here; what they mean, in the worker."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Final

from google.protobuf import json_format
from vilix.inference.v1 import inference_service_pb2 as pb

from services.gateway.dialects.json_fields import Fields, json_text, wrong_type
from services.gateway.dialects.openai_chat.chat_format import add_format
from services.gateway.dialects.openai_chat.sampling_fields import add_sampling
from services.gateway.dialects.openai_chat.stream_fields import add_stream, ignored_fields
from services.gateway.errors import bad_request, shown
from services.gateway.images.image_parts import ImageLimits, Images
from services.gateway.routing.message_size import check_number_of_elements

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
_REFUSED: Final = {
    "audio": "audio is not available here; leave it out",
    "functions": "functions was replaced by tools; send tools",
    "function_call": "function_call was replaced by tool_choice; send tool_choice",
    "web_search_options": "web_search_options is not available here; leave it out",
}


@dataclass(frozen=True, slots=True)
class TextOptions:
    """What only a text completion has."""

    echo: str = ""
    """The text that comes before what is generated."""


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """A translated request."""

    generate: pb.GenerateRequest
    stream: bool
    include_usage: bool
    """Whether the stream ends with a chunk of usage."""
    continuous_usage: bool
    """Whether every chunk carries the usage so far."""
    ignored: list[str]
    """Fields that are no part of the API."""
    dry_run: bool = False
    """Whether only the prompt is asked for."""
    images: Images = field(default_factory=Images)
    """Its images; some may have to be fetched."""
    form: str = "response_format"
    """The path at which it gives the form of its answer."""
    text: TextOptions | None = None
    """For a text completion, which is no chat."""
    text_bytes: int | None = None
    """The size of what a worker gets without its images, once it was measured."""

    @property
    def size(self) -> int | None:
        """The size of what a worker gets, with the images that were fetched by now, if it was measured."""
        return None if self.text_bytes is None else self.text_bytes + self.images.total_bytes


def measured(chat: ChatRequest) -> ChatRequest:
    """A request with its size, which takes long for a large one: to be called where that holds up nobody.

    Raises ApiError (400) for one that has more elements than a worker takes.
    """
    check_number_of_elements(chat.generate)
    return replace(chat, text_bytes=chat.generate.ByteSize() - chat.images.total_bytes)


def without_prompt(chat: ChatRequest) -> ChatRequest:
    """A request as far as its answer depends on it once a worker has it: without what was asked, which may be large."""
    generate = pb.GenerateRequest(model=chat.generate.model, n=chat.generate.n)
    if chat.generate.HasField("logprobs"):
        generate.logprobs.CopyFrom(chat.generate.logprobs)
    return replace(chat, generate=generate)


def translate(body: Any, *, refuse_ignored: bool, image_limits: ImageLimits | None = None) -> ChatRequest:
    """Translate a parsed body. Raises ApiError (400) that names the field, what it holds and what it must be."""
    fields = Fields(body)
    generate = pb.GenerateRequest(
        model=fields.required_string("model"),
        n=fields.integer("n", least=1) or 1,
        continue_final_message=fields.boolean("continue_final_message") or False,
        refuse_ignored_parameters=refuse_ignored,
    )
    for name, message in _REFUSED.items():
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
    images = Images(image_limits or ImageLimits())
    _add_messages(fields, generate, images)
    add_sampling(fields, generate.sampling)
    _add_logprobs(fields, generate)
    _add_tools(fields, generate)
    _add_reasoning(fields, generate)
    return completed(fields, generate, refuse_ignored=refuse_ignored, images=images)


def completed(
    fields: Fields,
    generate: pb.GenerateRequest,
    *,
    refuse_ignored: bool,
    images: Images | None = None,
    text: TextOptions | None = None,
) -> ChatRequest:
    """The request, once all is read of `fields` but what every kind of completion has. Raises ApiError."""
    form = add_format(fields, generate.response_format)
    dry_run = fields.boolean("dry_run") or False
    streaming = add_stream(fields)
    return ChatRequest(
        generate,
        stream=streaming.stream,
        include_usage=streaming.include_usage,
        continuous_usage=streaming.continuous_usage,
        ignored=ignored_fields(fields, refuse=refuse_ignored),
        dry_run=dry_run,
        images=images or Images(),
        form=form,
        text=text,
    )


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


def _add_messages(fields: Fields, generate: pb.GenerateRequest, images: Images) -> None:
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


def _add_content(message: Fields, translated: pb.Message, images: Images) -> None:
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


def _add_part(part: Fields, translated: pb.Message, images: Images) -> None:
    kind = part.required_string("type")
    if kind == "text":
        translated.content.add(text=part.required_string("text"))
    elif kind == "image_url":
        images.add(part, translated)
    else:
        raise bad_request(
            part.path("type"), f"{part.path('type')} is {shown(kind)}; only text and image_url are available here"
        )


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
