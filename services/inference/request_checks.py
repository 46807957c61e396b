"""Refuses what a GenerateRequest must not hold, before anything is rendered or allocated for it."""

from __future__ import annotations

from typing import Any, Final

from vilix.inference.v1 import inference_service_pb2 as pb

from services.failure import Failure, Reason, Violation, invalid
from services.inference.served_model import ServedModel

MAX_STOP_STRINGS: Final = 4
MAX_STOP_LENGTH: Final = 256
MAX_STOP_TOKEN_IDS: Final = 64
MAX_LOGIT_BIASES: Final = 1024
MAX_TOP_LOGPROBS: Final = 20
MAX_TENANT_BYTES: Final = 256
MAX_FORMAT_LENGTH: Final = 65_536
MAX_CHOICE_STRINGS: Final = 1_000

_RANGES: Final[dict[str, tuple[float, float]]] = {
    "temperature": (0, 2),
    "top_p": (0, 1),
    "min_p": (0, 1),
    "frequency_penalty": (-2, 2),
    "presence_penalty": (-2, 2),
}


def check(request: pb.GenerateRequest, model: ServedModel, *, max_choices: int, max_messages: int) -> None:
    """Raise Failure for the first field that does not fit, naming it, its value and the limit.

    INVALID_ARGUMENT for a value that no model takes, UNSUPPORTED_PARAMETER for one that this model or its engine cannot
    honour.
    """
    _check_input(request, model, max_messages)
    if request.n > max_choices:
        raise invalid(
            "n", f"n is {request.n}; at most {max_choices} choices are allowed", value=request.n, limit=max_choices
        )
    if len(request.tenant.encode()) > MAX_TENANT_BYTES:
        size = len(request.tenant.encode())
        raise invalid(
            "tenant",
            f"tenant has {size} bytes; at most {MAX_TENANT_BYTES} are allowed",
            value=size,
            limit=MAX_TENANT_BYTES,
        )
    _check_sampling(request.sampling, model)
    if request.HasField("logprobs") and request.logprobs.top > MAX_TOP_LOGPROBS:
        top = request.logprobs.top
        raise invalid(
            "logprobs.top",
            f"logprobs.top is {top}; at most {MAX_TOP_LOGPROBS} is allowed",
            value=top,
            limit=MAX_TOP_LOGPROBS,
        )
    _check_capabilities(request, model)
    _check_format(request.response_format)


def _check_input(request: pb.GenerateRequest, model: ServedModel, max_messages: int) -> None:
    given = [
        name
        for name, present in (
            ("messages", bool(request.messages)),
            ("prompt", request.HasField("prompt")),
            ("prompt_token_ids", bool(request.prompt_token_ids)),
        )
        if present
    ]
    if len(given) != 1:
        found = " and ".join(given) or "none of them"
        raise invalid("messages", f"exactly one of messages, prompt and prompt_token_ids is needed, and {found} is set")
    if len(request.messages) > max_messages:
        count = len(request.messages)
        raise invalid(
            "messages",
            f"there are {count} messages; at most {max_messages} are allowed",
            value=count,
            limit=max_messages,
        )
    for index, message in enumerate(request.messages):
        _check_message(f"messages[{index}]", message, model)
    if request.continue_final_message and (
        not request.messages or request.messages[-1].role != pb.ROLE_ASSISTANT or request.messages[-1].tool_calls
    ):
        raise invalid(
            "continue_final_message",
            "only an assistant's message with text can be continued, and the last message is none",
        )
    vocabulary = model.tokenizer.vocabulary_size
    for token_id in request.prompt_token_ids:
        if token_id >= vocabulary:
            raise invalid(
                "prompt_token_ids",
                f"{token_id} is no token of {model.id}; its ids are 0 to {vocabulary - 1}",
                value=token_id,
                limit=vocabulary - 1,
            )


def _check_message(path: str, message: pb.Message, model: ServedModel) -> None:
    if message.role not in (pb.ROLE_SYSTEM, pb.ROLE_USER, pb.ROLE_ASSISTANT, pb.ROLE_TOOL):
        raise invalid(f"{path}.role", f"{path}.role is not set, or unknown", value=message.role)
    if not message.content and not message.tool_calls and message.role != pb.ROLE_ASSISTANT:
        raise invalid(f"{path}.content", f"{path} has no content")
    for part_index, part in enumerate(message.content):
        kind = part.WhichOneof("part")
        if kind is None:
            raise invalid(f"{path}.content[{part_index}]", f"{path}.content[{part_index}] is empty")
        if kind == "image":
            raise _unsupported(
                f"{path}.content[{part_index}].image", f"the model {model.id} cannot see images; send text only"
            )


def _check_sampling(sampling: pb.SamplingParams, model: ServedModel) -> None:
    for name, (least, most) in _RANGES.items():
        if sampling.HasField(name):  # type: ignore[arg-type]  # a name of that message
            value = getattr(sampling, name)
            # Written so that NaN is refused too.
            if not least <= value <= most:
                raise _out_of_range(f"sampling.{name}", value, f"{least:g} to {most:g}")
    if sampling.HasField("repetition_penalty") and not 0 < sampling.repetition_penalty <= 2:
        raise _out_of_range("sampling.repetition_penalty", sampling.repetition_penalty, "above 0, up to 2")
    if sampling.HasField("max_tokens") and sampling.max_tokens < 1:
        raise _out_of_range("sampling.max_tokens", sampling.max_tokens, "at least 1")
    if sampling.HasField("max_tokens") and sampling.min_tokens > sampling.max_tokens:
        raise _out_of_range("sampling.min_tokens", sampling.min_tokens, f"at most max_tokens, {sampling.max_tokens}")
    _check_stops(sampling, model)
    if len(sampling.logit_bias) > MAX_LOGIT_BIASES:
        raise _out_of_range("sampling.logit_bias", len(sampling.logit_bias), f"at most {MAX_LOGIT_BIASES} tokens")
    for token_id, bias in sampling.logit_bias.items():
        if token_id >= model.tokenizer.vocabulary_size:
            raise _out_of_range(
                "sampling.logit_bias", token_id, f"token ids from 0 to {model.tokenizer.vocabulary_size - 1}"
            )
        if not -100 <= bias <= 100:
            raise _out_of_range(f"sampling.logit_bias[{token_id}]", bias, "-100 to 100")
    for descriptor, _ in sampling.ListFields():
        if descriptor.name not in ("stop", "skip_special_tokens") and not model.supports(descriptor.name):
            engine = model.engine().engine
            raise _unsupported(
                f"sampling.{descriptor.name}",
                f"the engine {engine} of {model.id} cannot do {descriptor.name}; leave it out",
            )


def _check_stops(sampling: pb.SamplingParams, model: ServedModel) -> None:
    if len(sampling.stop) > MAX_STOP_STRINGS:
        raise _out_of_range("sampling.stop", len(sampling.stop), f"at most {MAX_STOP_STRINGS} strings")
    for index, string in enumerate(sampling.stop):
        if not 1 <= len(string) <= MAX_STOP_LENGTH:
            raise invalid(
                f"sampling.stop[{index}]",
                f"sampling.stop[{index}] has {len(string)} characters; it must have 1 to {MAX_STOP_LENGTH}",
                value=len(string),
                limit=MAX_STOP_LENGTH,
            )
    if len(sampling.stop_token_ids) > MAX_STOP_TOKEN_IDS:
        raise _out_of_range(
            "sampling.stop_token_ids", len(sampling.stop_token_ids), f"at most {MAX_STOP_TOKEN_IDS} ids"
        )
    for token_id in sampling.stop_token_ids:
        if token_id >= model.tokenizer.vocabulary_size:
            raise _out_of_range("sampling.stop_token_ids", token_id, f"0 to {model.tokenizer.vocabulary_size - 1}")


def _check_capabilities(request: pb.GenerateRequest, model: ServedModel) -> None:
    wants_call = request.tool_choice.mode in (pb.TOOL_CHOICE_MODE_REQUIRED, pb.TOOL_CHOICE_MODE_FUNCTIONS)
    if wants_call or (request.tools and request.tool_choice.mode != pb.TOOL_CHOICE_MODE_NONE):
        raise _unsupported("tools", f"the model {model.id} cannot call functions; leave tools out")
    reasoning = request.reasoning
    silent = (pb.REASONING_EFFORT_UNSPECIFIED, pb.REASONING_EFFORT_NONE)
    if reasoning.enabled or reasoning.effort not in silent:
        raise _unsupported("reasoning", f"the model {model.id} does not think before it answers; leave reasoning out")
    if reasoning.HasField("budget_tokens"):
        raise _unsupported(
            "reasoning.budget_tokens", f"the model {model.id} does not think before it answers; leave the budget out"
        )
    for name in request.chat_template_kwargs:
        if name not in model.spec.template_variables:
            raise _unsupported(
                f"chat_template_kwargs.{name}", f"the chat template of {model.id} takes no {name}; leave it out"
            )
    if request.HasField("logprobs") and not model.supports("logprobs"):
        raise _unsupported("logprobs", f"the engine of {model.id} gives no log probabilities; leave logprobs out")
    if request.response_format.WhichOneof("format") and not model.supports("guide"):
        raise _unsupported(
            "response_format", f"the engine of {model.id} cannot be held to a form; leave response_format out"
        )


def _check_format(response_format: pb.ResponseFormat) -> None:
    kind = response_format.WhichOneof("format")
    if kind is None or kind == "json_object":
        return
    if kind == "choice":
        choices = response_format.choice.choices
        if not 1 <= len(choices) <= MAX_CHOICE_STRINGS or not all(choices):
            raise _out_of_range(
                "response_format.choice", len(choices), f"1 to {MAX_CHOICE_STRINGS} strings, none of them empty"
            )
        size = sum(map(len, choices))
    else:
        form: Any = getattr(response_format, kind)
        size = len(form.schema_json if kind == "json_schema" else form)
    if size > MAX_FORMAT_LENGTH:
        raise _out_of_range(f"response_format.{kind}", size, f"at most {MAX_FORMAT_LENGTH} characters")


def _out_of_range(field: str, value: object, limit: str) -> Failure:
    shown = f"{value:g}" if isinstance(value, float) else str(value)
    return invalid(field, f"{field} is {shown}; it must be {limit}", value=shown, limit=limit)


def _unsupported(field: str, message: str) -> Failure:
    return Failure(Reason.UNSUPPORTED_PARAMETER, message, violations=(Violation(field, message),))
