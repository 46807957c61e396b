"""Rejects invalid and unsupported fields of a GenerateRequest, before anything is rendered or allocated for it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from vilix.inference.v1 import inference_service_pb2 as pb

from services.inference.model.served_model import ServedModel
from services.inference.request.images import ImageLimits, check_images, image_bytes
from services.inference.request.prompt import context_exceeded, context_length
from services.inference.request.prompts import number_of_choices
from services.inference.request.raw_prompts import check_raw_prompts
from services.inference.request.reasoning_policy import effort_enables_reasoning
from services.inference.request.structured_output.held_calls import holds_calls, strict_functions
from services.inference.request.structured_output.response_format import check_held_calls, check_structured_output
from services.inference.request.tools import check_function_name, check_tools, requires_call
from services.inference.triton_backend.contract import LEAST_REPETITION_PENALTY
from services.runtime.failure import Failure, invalid, unsupported
from services.runtime.messages.message import Message

MAX_PARTS: Final = 1024
MAX_NAME_LENGTH: Final = 256
MAX_ARGUMENTS_LENGTH: Final = 512 * 1024
"""The most characters of the arguments of one past tool call: parsing JSON holds the GIL."""
MAX_STOP_STRINGS: Final = 64
MAX_STOP_LENGTH: Final = 256
MAX_STOP_TOKEN_IDS: Final = 64
MAX_LOGIT_BIASES: Final = 1024
MAX_BIAS: Final = 100
MAX_TOP_LOGPROBS: Final = 20
MAX_TENANT_BYTES: Final = 256

_RANGES: Final[dict[str, tuple[float, float]]] = {
    "temperature": (0, 2),
    "top_p": (0, 1),
    "min_p": (0, 1),
    "frequency_penalty": (-2, 2),
    "presence_penalty": (-2, 2),
}
_WORKERS_OWN: Final = frozenset({"stop", "skip_special_tokens"})
_ADVISORY: Final = {"tenant": "cache_salt", "priority": "priority"}
"""Fields that may be ignored, because they change no text, with the engine's parameters that honour them."""
# Reasoning is enabled or disabled, without degrees, and a model without reasoning answers at any effort.
_EFFORTS_THAT_COUNT: Final = (pb.REASONING_EFFORT_UNSPECIFIED, pb.REASONING_EFFORT_NONE)


@dataclass(frozen=True)
class RequestLimits:
    """Limits, set by the operator, on requests."""

    max_choices: int = 128
    max_messages: int = 2048
    max_prompt_bytes: int = 8 * 2**20
    """The most bytes of the prompt, without images."""
    images: ImageLimits = field(default_factory=ImageLimits)


def check(request: pb.GenerateRequest, model: ServedModel, limits: RequestLimits) -> None:
    """Raise Failure for the first invalid field, with its name, value and limit.

    The reason is INVALID_ARGUMENT for a value that no model accepts, and UNSUPPORTED_PARAMETER for one that this model
    or its engine does not support.
    """
    _check_input(request, model, limits)
    _at_most("n", request.n, limits.max_choices)
    if number_of_choices(request) > limits.max_choices:
        _check_entries("further_prompts", 1 + len(request.further_prompts), limits.max_choices // max(1, request.n))
    _check_bytes("tenant", len(request.tenant.encode()), MAX_TENANT_BYTES)
    _at_most("logprobs.top", request.logprobs.top, MAX_TOP_LOGPROBS)
    _check_sampling(request.sampling, model)
    _check_abilities(request, model)
    ignored = ignored_parameters(request, model)
    if request.refuse_ignored_parameters and ignored:
        raise unsupported(Message("field_would_be_ignored", field=ignored[0], model=model.id))


def ignored_parameters(request: pb.GenerateRequest, model: ServedModel) -> list[str]:
    """Return the fields of the request that are ignored, because the request can be served without them."""
    ignored = [field for field, key in _ADVISORY.items() if getattr(request, field) and not model.supports(key)]
    if request.reasoning.effort not in _EFFORTS_THAT_COUNT and not effort_enables_reasoning(request, model):
        ignored.append("reasoning.effort")
    ignored += [problem.field or "" for problem in _unsupported_reasoning(request.reasoning, model)]
    if requires_call(request) and request.response_format.WhichOneof("format") is not None:
        # A required call has its own structured output.
        ignored.append("response_format")
    elif request.response_format.json_schema.description:
        ignored.append("response_format.json_schema.description")
    if not holds_calls(request, model):
        # Nothing enforces the schema then.
        ignored += [f"tools[{index}].strict" for index in strict_functions(request)]
    return ignored


def _check_input(request: pb.GenerateRequest, model: ServedModel, limits: RequestLimits) -> None:
    is_present = {
        "messages": bool(request.messages),
        "prompt": request.HasField("prompt"),
        "prompt_token_ids": bool(request.prompt_token_ids),
    }
    present = [field for field, is_set in is_present.items() if is_set]
    if not present:
        raise invalid(Message("prompt_missing", field="messages", choices=", ".join(is_present)))
    if len(present) > 1:
        choices, names = ", ".join(is_present), ", ".join(present)
        raise invalid(Message("several_prompts", field="messages", choices=choices, names=names))
    _check_entries("messages", len(request.messages), limits.max_messages)
    messages = sum(message.ByteSize() for message in request.messages)
    size = len(request.prompt.encode()) + len(request.suffix.encode()) or messages - image_bytes(request)
    size += sum(len(further.text.encode()) for further in request.further_prompts)
    _check_bytes(present[0], size, limits.max_prompt_bytes)
    check_raw_prompts(request, model)
    for index, message in enumerate(request.messages):
        _check_message(f"messages[{index}]", message, model)
    check_images(request, model, limits.images)
    if request.continue_final_message:
        _check_continuation(request)
    if len(request.prompt_token_ids) >= context_length(model):
        raise context_exceeded(request, model, len(request.prompt_token_ids))
    _check_token_ids("prompt_token_ids", request.prompt_token_ids, model)
    for index, further in enumerate(request.further_prompts):
        _check_token_ids(f"further_prompts[{index}].token_ids", further.token_ids.ids, model)


def _check_message(path: str, message: pb.Message, model: ServedModel) -> None:
    if message.role not in (pb.ROLE_SYSTEM, pb.ROLE_USER, pb.ROLE_ASSISTANT, pb.ROLE_TOOL):
        raise invalid(Message("value_unknown", field=f"{path}.role", value=message.role))
    is_about_tools = message.role == pb.ROLE_TOOL or message.tool_calls or message.tool_call_id
    if is_about_tools and model.spec.parsers.tool_calls is None:
        field = "tool_calls" if message.tool_calls else "tool_call_id" if message.tool_call_id else "role"
        raise unsupported(Message("tool_results_not_supported", field=f"{path}.{field}", model=model.id))
    if not message.content and message.role != pb.ROLE_ASSISTANT:
        raise invalid(Message("content_missing", field=f"{path}.content"))
    for index, call in enumerate(message.tool_calls):
        field = f"{path}.tool_calls[{index}]"
        check_function_name(f"{field}.name", call.name)
        _check_length(f"{field}.arguments_json", call.arguments_json, MAX_ARGUMENTS_LENGTH)
    _check_length(f"{path}.name", message.name, MAX_NAME_LENGTH)
    _check_entries(f"{path}.content", len(message.content), MAX_PARTS)
    for index, part in enumerate(message.content):
        field = f"{path}.content[{index}]"
        if part.WhichOneof("part") is None:
            raise invalid(Message("part_empty", field=field))


def _check_continuation(request: pb.GenerateRequest) -> None:
    last = request.messages[-1] if request.messages else pb.Message()
    if last.role != pb.ROLE_ASSISTANT or last.tool_calls or not any(part.text.strip() for part in last.content):
        raise invalid(Message("last_message_cannot_be_continued", field="continue_final_message"))


def _check_sampling(sampling: pb.SamplingParams, model: ServedModel) -> None:
    names = {descriptor.name for descriptor, _ in sampling.ListFields()}
    for name in sorted(names & _RANGES.keys()):
        least, most = _RANGES[name]
        value = getattr(sampling, name)
        # Written so that NaN is rejected too.
        if not least <= value <= most:
            raise _out_of_range(f"sampling.{name}", value, least, most)
    if sampling.HasField("repetition_penalty") and not (
        LEAST_REPETITION_PENALTY <= round(sampling.repetition_penalty, 6) <= 2
    ):
        penalty = sampling.repetition_penalty
        raise _out_of_range("sampling.repetition_penalty", penalty, LEAST_REPETITION_PENALTY, 2)
    if sampling.HasField("max_tokens"):
        if sampling.max_tokens < 1:
            raise invalid(Message("below_minimum", field="sampling.max_tokens", value=sampling.max_tokens, least=1))
        if sampling.min_tokens > sampling.max_tokens:
            raise invalid(
                Message(
                    "over_other_field",
                    field="sampling.min_tokens",
                    value=sampling.min_tokens,
                    other_field="sampling.max_tokens",
                    limit=sampling.max_tokens,
                )
            )
    _at_most("sampling.top_k", sampling.top_k, 2**31 - 1)
    _check_stops(sampling, model)
    _check_biases(sampling, model)
    for name in sorted(names - _WORKERS_OWN):
        if not model.supports(name):
            raise _engine_lacks(f"sampling.{name}", model)


def _check_stops(sampling: pb.SamplingParams, model: ServedModel) -> None:
    _check_entries("sampling.stop", len(sampling.stop), MAX_STOP_STRINGS)
    for index, string in enumerate(sampling.stop):
        if not string:
            raise invalid(Message("text_empty", field=f"sampling.stop[{index}]"))
        _check_length(f"sampling.stop[{index}]", string, MAX_STOP_LENGTH)
    _check_entries("sampling.stop_token_ids", len(sampling.stop_token_ids), MAX_STOP_TOKEN_IDS)
    _check_token_ids("sampling.stop_token_ids", sampling.stop_token_ids, model)


def _check_biases(sampling: pb.SamplingParams, model: ServedModel) -> None:
    _check_entries("sampling.logit_bias", len(sampling.logit_bias), MAX_LOGIT_BIASES)
    _check_token_ids("sampling.logit_bias", sampling.logit_bias, model)
    for token_id, bias in sampling.logit_bias.items():
        if not -MAX_BIAS <= bias <= MAX_BIAS:
            raise _out_of_range(f"sampling.logit_bias[{token_id}]", bias, -MAX_BIAS, MAX_BIAS)


def _check_token_ids(field: str, token_ids: Iterable[int], model: ServedModel) -> None:
    largest = max(token_ids, default=0)
    last = model.tokenizer.vocabulary_size - 1
    if largest > last:
        raise invalid(Message("token_id_unknown", field=field, value=largest, model=model.id, limit=last))


def _check_abilities(request: pb.GenerateRequest, model: ServedModel) -> None:
    """Raise Failure for unsupported fields that must not be ignored. Fields without an effect are accepted."""
    check_tools(request, model)
    check_structured_output(request, model)
    check_held_calls(request, model)
    _check_reasoning(request.reasoning, model)
    for name in sorted(request.chat_template_kwargs.fields):
        if name not in model.spec.template_variables:
            field = f"chat_template_kwargs.{name[:64]}"
            raise unsupported(Message("template_variable_unknown", field=field, model=model.id))
    if request.HasField("logprobs") and not model.supports("logprobs"):
        raise _engine_lacks("logprobs", model)
    if request.logprobs.prompt and not model.supports("prompt_logprobs"):
        raise _engine_lacks("logprobs.prompt", model)


def _check_reasoning(reasoning: pb.ReasoningOptions, model: ServedModel) -> None:
    problems = _unsupported_reasoning(reasoning, model)
    if problems and not reasoning.if_supported:
        raise unsupported(problems[0])


def _unsupported_reasoning(reasoning: pb.ReasoningOptions, model: ServedModel) -> list[Message]:
    """Return what is wrong with each option that the model does not support."""
    problems: list[Message] = []
    if model.spec.parsers.reasoning is not None:
        turned_off = reasoning.HasField("enabled") and not reasoning.enabled
        if (
            turned_off or reasoning.effort == pb.REASONING_EFFORT_NONE
        ) and not model.spec.capabilities.reasoning_optional:
            field = "reasoning.enabled" if turned_off else "reasoning.effort"
            problems.append(Message("reasoning_not_optional", field=field, model=model.id))
        if reasoning.HasField("budget_tokens") and not model.supports_reasoning_budget:
            problems.append(Message("reasoning_budget_not_supported", field="reasoning.budget_tokens", model=model.id))
        return problems
    is_requested = {
        "reasoning.enabled": reasoning.enabled,
        "reasoning.budget_tokens": reasoning.HasField("budget_tokens"),
    }
    fields = [field for field, is_set in is_requested.items() if is_set]
    return [Message("reasoning_not_supported", field=field, model=model.id) for field in fields]


def _at_most(field: str, value: int, limit: int) -> None:
    if value > limit:
        raise invalid(Message("over_limit", field=field, value=value, limit=limit))


def _check_bytes(field: str, size: int, limit: int) -> None:
    if size > limit:
        raise invalid(Message("too_many_bytes", field=field, value=size, limit=limit))


def _check_entries(field: str, count: int, limit: int) -> None:
    if count > limit:
        raise invalid(Message("too_many_entries", field=field, value=count, limit=limit))


def _check_length(field: str, text: str, limit: int) -> None:
    if len(text) > limit:
        raise invalid(Message("text_too_long", field=field, value=len(text), limit=limit))


def _out_of_range(field: str, value: float, least: float, most: float) -> Failure:
    # Numbers of 32 bits have six digits that count.
    return invalid(Message("out_of_range", field=field, value=f"{value:g}", least=least, most=most))


def _engine_lacks(field: str, model: ServedModel) -> Failure:
    return unsupported(Message("engine_lacks_field", field=field, engine=model.engine().engine, model=model.id))
