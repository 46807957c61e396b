"""Rejects invalid and unsupported fields of a GenerateRequest, before anything is rendered or allocated for it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from vilix.inference.v1 import inference_service_pb2 as pb

from services.inference.model.served_model import ServedModel
from services.inference.request.images import ImageLimits, check_images, image_bytes
from services.inference.request.prompt import context_exceeded, context_length
from services.inference.request.reasoning_policy import effort_enables_reasoning
from services.inference.request.structured_output.response_format import check_structured_output
from services.inference.request.tools import callable_functions, check_function_name, check_tools, requires_call
from services.inference.triton_backend.contract import LEAST_REPETITION_PENALTY
from services.runtime.failure import Failure, Reason, Violation, invalid

MAX_PARTS: Final = 1024
MAX_NAME_LENGTH: Final = 256
MAX_ARGUMENTS_LENGTH: Final = 512 * 1024
"""The most characters of the arguments of one past tool call: parsing JSON holds the GIL."""
MAX_STOP_STRINGS: Final = 4
MAX_STOP_LENGTH: Final = 256
MAX_STOP_TOKEN_IDS: Final = 64
MAX_LOGIT_BIASES: Final = 1024
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
# Reasoning is enabled or disabled, without degrees.
_EFFORTS_THAT_COUNT: Final = (pb.REASONING_EFFORT_UNSPECIFIED, pb.REASONING_EFFORT_NONE)


@dataclass(frozen=True)
class RequestLimits:
    """Limits, set by the operator, on requests."""

    max_choices: int = 8
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
    _at_most("tenant", len(request.tenant.encode()), MAX_TENANT_BYTES, unit=" bytes long")
    _at_most("logprobs.top", request.logprobs.top, MAX_TOP_LOGPROBS)
    _check_sampling(request.sampling, model)
    _check_abilities(request, model)
    ignored = ignored_parameters(request, model)
    if request.refuse_ignored_parameters and ignored:
        raise _unsupported(ignored[0], f"the engine of {model.id} cannot honour {ignored[0]}; leave it out")


def ignored_parameters(request: pb.GenerateRequest, model: ServedModel) -> list[str]:
    """Return the fields of the request that are ignored, because the request can be served without them."""
    ignored = [field for field, key in _ADVISORY.items() if getattr(request, field) and not model.supports(key)]
    has_degree = model.spec.parsers.reasoning is not None and request.reasoning.effort not in _EFFORTS_THAT_COUNT
    if has_degree and not effort_enables_reasoning(request, model):
        ignored.append("reasoning.effort")
    if requires_call(request) and request.response_format.WhichOneof("format") is not None:
        # A required call has its own structured output.
        ignored.append("response_format")
    elif request.response_format.json_schema.description:
        ignored.append("response_format.json_schema.description")
    if any(tool.strict for tool in request.tools) and not requires_call(request):
        # The schema is enforced for required calls only.
        functions = callable_functions(request)
        strict = (index for index, tool in enumerate(request.tools) if tool.strict and tool.name in functions)
        ignored += [f"tools[{index}].strict" for index in strict]
    return ignored


def _check_input(request: pb.GenerateRequest, model: ServedModel, limits: RequestLimits) -> None:
    present = {
        "messages": bool(request.messages),
        "prompt": request.HasField("prompt"),
        "prompt_token_ids": bool(request.prompt_token_ids),
    }
    given = [field for field, is_given in present.items() if is_given]
    if len(given) != 1:
        found = " and ".join(given) or "none of them"
        raise invalid("messages", f"exactly one of messages, prompt and prompt_token_ids is needed, and {found} is set")
    _at_most("messages", len(request.messages), limits.max_messages, unit=" in number")
    messages = sum(message.ByteSize() for message in request.messages)
    size = len(request.prompt.encode()) or messages - image_bytes(request)
    _at_most(given[0], size, limits.max_prompt_bytes, unit=" bytes long")
    for index, message in enumerate(request.messages):
        _check_message(f"messages[{index}]", message, model)
    check_images(request, model, limits.images)
    if request.continue_final_message:
        _check_continuation(request)
    if len(request.prompt_token_ids) >= context_length(model):
        raise context_exceeded(request, model, len(request.prompt_token_ids))
    _check_token_ids("prompt_token_ids", request.prompt_token_ids, model)


def _check_message(path: str, message: pb.Message, model: ServedModel) -> None:
    if message.role not in (pb.ROLE_SYSTEM, pb.ROLE_USER, pb.ROLE_ASSISTANT, pb.ROLE_TOOL):
        raise invalid(f"{path}.role", f"{path}.role is {message.role}, which is no role", value=message.role)
    is_about_tools = message.role == pb.ROLE_TOOL or message.tool_calls or message.tool_call_id
    if is_about_tools and model.spec.parsers.tool_calls is None:
        field = "tool_calls" if message.tool_calls else "tool_call_id" if message.tool_call_id else "role"
        raise _unsupported(f"{path}.{field}", f"the model {model.id} cannot call functions; leave their results out")
    if not message.content and message.role != pb.ROLE_ASSISTANT:
        raise invalid(f"{path}.content", f"{path} has no content")
    for index, call in enumerate(message.tool_calls):
        field = f"{path}.tool_calls[{index}]"
        check_function_name(f"{field}.name", call.name)
        _at_most(f"{field}.arguments_json", len(call.arguments_json), MAX_ARGUMENTS_LENGTH, unit=" characters long")
    _at_most(f"{path}.name", len(message.name), MAX_NAME_LENGTH, unit=" characters long")
    _at_most(f"{path}.content", len(message.content), MAX_PARTS, unit=" parts long")
    for index, part in enumerate(message.content):
        field = f"{path}.content[{index}]"
        if part.WhichOneof("part") is None:
            raise invalid(field, f"{field} is empty")


def _check_continuation(request: pb.GenerateRequest) -> None:
    last = request.messages[-1] if request.messages else pb.Message()
    if last.role != pb.ROLE_ASSISTANT or last.tool_calls or not any(part.text.strip() for part in last.content):
        raise invalid(
            "continue_final_message",
            "only an assistant's message with text and without calls can be continued, and the last message is none",
        )


def _check_sampling(sampling: pb.SamplingParams, model: ServedModel) -> None:
    given = {descriptor.name for descriptor, _ in sampling.ListFields()}
    for name in sorted(given & _RANGES.keys()):
        least, most = _RANGES[name]
        value = getattr(sampling, name)
        # Written so that NaN is rejected too.
        if not least <= value <= most:
            raise _out_of_range(f"sampling.{name}", value, f"{least:g} to {most:g}")
    if sampling.HasField("repetition_penalty") and not (
        LEAST_REPETITION_PENALTY <= round(sampling.repetition_penalty, 6) <= 2
    ):
        limit = f"{LEAST_REPETITION_PENALTY:g} to 2"
        raise _out_of_range("sampling.repetition_penalty", sampling.repetition_penalty, limit)
    if sampling.HasField("max_tokens"):
        if sampling.max_tokens < 1:
            raise _out_of_range("sampling.max_tokens", sampling.max_tokens, "at least 1")
        if sampling.min_tokens > sampling.max_tokens:
            raise _out_of_range(
                "sampling.min_tokens", sampling.min_tokens, f"at most max_tokens, {sampling.max_tokens}"
            )
    if sampling.top_k > 2**31 - 1:
        raise _out_of_range("sampling.top_k", sampling.top_k, f"at most {2**31 - 1}")
    _check_stops(sampling, model)
    _check_biases(sampling, model)
    for name in sorted(given - _WORKERS_OWN):
        if not model.supports(name):
            raise _unsupported(
                f"sampling.{name}", f"the engine {model.engine().engine} of {model.id} cannot do {name}; leave it out"
            )


def _check_stops(sampling: pb.SamplingParams, model: ServedModel) -> None:
    _at_most("sampling.stop", len(sampling.stop), MAX_STOP_STRINGS, unit=" strings long")
    for index, string in enumerate(sampling.stop):
        if not string:
            raise _out_of_range(f"sampling.stop[{index}]", "empty", "at least one character")
        _at_most(f"sampling.stop[{index}]", len(string), MAX_STOP_LENGTH, unit=" characters long")
    _at_most("sampling.stop_token_ids", len(sampling.stop_token_ids), MAX_STOP_TOKEN_IDS, unit=" ids long")
    _check_token_ids("sampling.stop_token_ids", sampling.stop_token_ids, model)


def _check_biases(sampling: pb.SamplingParams, model: ServedModel) -> None:
    _at_most("sampling.logit_bias", len(sampling.logit_bias), MAX_LOGIT_BIASES, unit=" tokens long")
    _check_token_ids("sampling.logit_bias", sampling.logit_bias, model)
    for token_id, bias in sampling.logit_bias.items():
        if not -100 <= bias <= 100:
            raise _out_of_range(f"sampling.logit_bias[{token_id}]", bias, "-100 to 100")


def _check_token_ids(field: str, token_ids: Iterable[int], model: ServedModel) -> None:
    largest = max(token_ids, default=0)
    last = model.tokenizer.vocabulary_size - 1
    if largest > last:
        message = f"{field} has {largest}, which is no token of {model.id}; its ids are 0 to {last}"
        raise invalid(field, message, value=largest, limit=last)


def _check_abilities(request: pb.GenerateRequest, model: ServedModel) -> None:
    """Raise Failure for unsupported fields that must not be ignored. Fields without an effect are accepted."""
    check_tools(request, model)
    check_structured_output(request, model)
    _check_reasoning(request.reasoning, model)
    for name in sorted(request.chat_template_kwargs.fields):
        if name not in model.spec.template_variables:
            field = f"chat_template_kwargs.{name[:64]}"
            raise _unsupported(field, f"the chat template of {model.id} takes no {name[:64]}; leave it out")
    if request.HasField("logprobs") and not model.supports("logprobs"):
        raise _unsupported("logprobs", f"the engine of {model.id} gives no log probabilities; leave logprobs out")


def _check_reasoning(reasoning: pb.ReasoningOptions, model: ServedModel) -> None:
    if model.spec.parsers.reasoning is not None:
        turned_off = reasoning.HasField("enabled") and not reasoning.enabled
        if (
            turned_off or reasoning.effort == pb.REASONING_EFFORT_NONE
        ) and not model.spec.capabilities.reasoning_optional:
            field = "reasoning.enabled" if turned_off else "reasoning.effort"
            raise _unsupported(field, f"the model {model.id} always thinks before it answers; leave {field} out")
        if reasoning.HasField("budget_tokens") and not model.supports_reasoning_budget:
            raise _unsupported("reasoning.budget_tokens", f"{model.id} takes no thinking budget; leave it out")
        return
    asked = {
        "reasoning.enabled": reasoning.enabled,
        "reasoning.effort": reasoning.effort not in (pb.REASONING_EFFORT_UNSPECIFIED, pb.REASONING_EFFORT_NONE),
        "reasoning.budget_tokens": reasoning.HasField("budget_tokens"),
    }
    for field, is_asked in asked.items():
        if is_asked:
            raise _unsupported(field, f"the model {model.id} does not think before it answers; leave {field} out")


def _at_most(field: str, value: int, limit: int, *, unit: str = "") -> None:
    if value > limit:
        raise invalid(field, f"{field} is {value}{unit}; at most {limit} is allowed", value=value, limit=limit)


def _out_of_range(field: str, value: object, limit: str) -> Failure:
    shown = f"{value:g}" if isinstance(value, float) else str(value)
    return invalid(field, f"{field} is {shown}; it must be {limit}", value=shown, limit=limit)


def _unsupported(field: str, message: str) -> Failure:
    return Failure(Reason.UNSUPPORTED_PARAMETER, message, violations=(Violation(field, message),))
