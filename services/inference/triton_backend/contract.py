"""What a request to the language model may hold, and what an engine owes it.

`params` is JSON text. It is either one of the control requests below, or the fields of `Params`:

* `{"describe": true}` answers with the tensor `description`, a JSON object of `engine`, `version`, `guide_library` and
  `guide_library_version` (empty without guides), `supported_parameters`, `context_length`, `slots` and `load`, which
  has the fields of `Load`;
* `{"acknowledge": {"request_id": ID, "responses": COUNT}}` says how many responses of a running request were read;
* `{"cancel": {"request_id": ID}}` stops a running request, which then ends with the finish reason `cancelled`.
  Cancelling the gRPC call works too, but in Triton before 24.12 it can crash the server when it crosses an answer
  (triton-inference-server/server#7840).

A request that is refused or fails ends with a RequestError, whose reason is one of INVALID_ARGUMENT,
UNSUPPORTED_PARAMETER, CONTEXT_LENGTH_EXCEEDED, OVERLOADED and ENGINE_FAILED.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, fields
from typing import Any, Final, Protocol

from services.worker.triton_kit.request_error import RequestError

MAX_TOP_LOGPROBS: Final = 20
MAX_LOGIT_BIASES: Final = 1024
LEAST_TEMPERATURE: Final = 1e-3
"""Logits that are divided by much smaller numbers are no longer finite."""
LEAST_TOP_P: Final = 1e-6
LEAST_REPETITION_PENALTY: Final = 0.01
STRUCTURED_OUTPUT_KINDS: Final = ("json", "regex", "grammar", "json_object", "structural_tag")


@dataclass(frozen=True, slots=True)
class StructuredOutput:
    """The form that the generated text must have."""

    kind: str
    """One of GUIDE_KINDS."""
    text: str
    """JSON Schema, regular expression, grammar or structural tag; empty for `json_object`."""


@dataclass(frozen=True, slots=True)
class Params:
    """How to generate. A field that the request leaves out has a value that changes nothing."""

    max_tokens: int | None = None
    """Most tokens to generate, at least 1. None: up to the context's end."""
    min_tokens: int = 0
    """The fewest tokens to generate before anything ends the generation.

    An engine that can forbids the end tokens until then. For another one, those that are not the tokenizer's own are
    ordinary tokens until then.
    """
    temperature: float = 1.0
    """0 (the most probable token, always) to 2. Below LEAST_TEMPERATURE it counts as 0."""
    top_p: float = 1.0
    """Choose among the most probable tokens that together have this probability: above 0, up to 1. Below
    LEAST_TOP_P it counts as that."""
    top_k: int = 0
    """Choose among so many most probable tokens. 0: all."""
    min_p: float = 0.0
    """Choose among tokens with at least this share of the most probable token's probability: 0 to 1."""
    frequency_penalty: float = 0.0
    """Taken from a token's logit for every time it was generated: -2 to 2."""
    presence_penalty: float = 0.0
    """Taken from a token's logit once it was generated: -2 to 2."""
    repetition_penalty: float = 1.0
    """Divides the logit of tokens of the prompt and the answer: LEAST_REPETITION_PENALTY to 2."""
    seed: int | None = None
    """Makes choices repeatable as far as the engine allows. Any 64-bit integer."""
    stop_token_ids: frozenset[int] = frozenset()
    """Tokens that end the answer. The one that did is the last of `token_ids`."""
    ignore_eos: bool = False
    """Go on after an end-of-sequence token."""
    logprobs: int | None = None
    """None: no log probabilities. 0: of the chosen tokens. Up to 20: also of so many most probable ones."""
    structured_output: StructuredOutput | None = None
    """The form that the text must have, from its first token."""
    logit_bias: tuple[tuple[int, float], ...] = ()
    """Pairs of a token and what is added to its logit, -100 to 100."""
    image_sizes: tuple[tuple[int, int], ...] = ()
    """Width and height in pixels to which each image is resized before the model's preprocessing. Empty: unchanged."""
    cache_salt: str = ""
    """Requests with different salts never share entries of the prefix cache."""
    priority: int = 0
    """Larger goes first among waiting requests."""
    window: int | None = None
    """Most responses sent but not acknowledged; then generation pauses. None: never pauses."""
    given: frozenset[str] = field(default=frozenset(), compare=False)
    """Names of the fields that the request had."""


@dataclass(frozen=True, slots=True)
class Acknowledgement:
    """How many responses of a running request its reader has read."""

    request_id: str
    responses: int
    """Since the request's start."""


@dataclass(frozen=True, slots=True)
class Cancellation:
    """Stops a running request."""

    request_id: str


@dataclass(frozen=True, slots=True)
class Describe:
    """Asks what the model is and how busy it is."""


@dataclass(frozen=True, slots=True)
class Request:
    """One answer to generate."""

    params: Params
    prompt_token_ids: list[int] = field(default_factory=list)
    text_input: str | None = None
    """The prompt as text, instead of ids."""
    images: tuple[bytes, ...] = ()
    """Encoded images in prompt order."""
    arrived: float = field(default_factory=time.monotonic)


@dataclass(frozen=True, slots=True)
class Tokens:
    """Generated tokens with what was asked for about them. Lists have one entry per token."""

    token_ids: list[int]
    logprobs: list[float] | None = None
    top: list[list[tuple[int, float]]] | None = None
    """Per token the most probable ones, best first, as pairs of id and log probability."""


@dataclass(slots=True)
class Usage:
    """What a request used. Times are in seconds."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    queued_s: float = 0.0
    prefill_s: float = 0.0
    decode_s: float = 0.0
    first_token_s: float = 0.0
    """From arrival to the first token; 0 when there was none."""

    def to_json(self) -> str:
        """The `usage` tensor."""
        timings = {
            name: round(getattr(self, name), 6) for name in ("queued_s", "prefill_s", "decode_s", "first_token_s")
        }
        counts = {name: getattr(self, name) for name in ("prompt_tokens", "completion_tokens", "cached_tokens")}
        return json.dumps({**counts, "timings": timings}, separators=(",", ":"))


@dataclass(frozen=True, slots=True)
class Load:
    """How busy an engine is."""

    in_flight: int
    queued: int
    kv_cache_use: float | None
    """Used share: 0 to 1. None where the engine cannot know."""
    last_token_age_s: float | None
    """None before the first token."""
    tokens_per_second: float
    """Over the last ten seconds."""
    cancelled_total: int
    generated_tokens_total: int
    step_age_s: float | None = None
    """Seconds since the engine last made progress while it has something to compute.

    None while it is idle, or while every request waits for its reader, its images or its structured output.
    """
    slow_steps_total: int = 0
    """Steps that took longer than a second, in which nobody had a token."""


class Sink(Protocol):
    """Where an engine puts the answer to one request. Methods may be called from any thread and never block long."""

    def has_room(self) -> bool:
        """Return False while the reader is behind: then emit nothing, and pause the generation if the engine can."""

    def is_cancelled(self) -> bool:
        """Whether nobody waits for the answer any more."""

    def emit(self, tokens: Tokens) -> None:
        """Send tokens. Those that are waiting to be sent travel together."""

    def finish(self, finish_reason: str, usage: Usage, last: Tokens | None = None) -> None:
        """Send the last tokens and end the answer: stop, length or cancelled. Nothing may follow."""

    def fail(self, error: RequestError) -> None:
        """End the answer with an error. Nothing may follow."""


class Engine(Protocol):
    """Generates tokens. `submit` returns at once; the engine works in threads or an event loop of its own."""

    name: str
    version: str
    supported_parameters: frozenset[str]
    """Names of `Params` fields, and `images`. A request with another one is refused before it reaches the engine."""
    context_length: int
    """Most tokens of prompt and answer together."""
    slots: int
    """How many requests it works on at once."""
    guide_library: str
    """The library that compiles guides; empty where there is none."""
    guide_library_version: str

    def submit(self, request: Request, sink: Sink) -> None:
        """Start or queue a request. Raises RequestError when it is refused; every later outcome goes to `sink`."""

    def wake(self) -> None:
        """Some sink has room again."""

    def load(self) -> Load:
        """How busy it is. Raises RequestError when it has failed for good."""

    def close(self) -> None:
        """Fail what is still running and stop all threads."""


SUPPORTED_BY_ALL: Final = frozenset({"window"})
VISION: Final = frozenset({"images", "image_sizes"})
"""What an engine supports beside parameters when it takes images: the tensor, and the parameter about it."""
_KEYS: Final = frozenset(f.name for f in fields(Params)) - {"given"}
ALL_PARAMETERS: Final = _KEYS - VISION
"""Of text."""


def parse(text: str) -> Params | Describe | Acknowledgement | Cancellation:
    """Read `params`. Raises RequestError (INVALID_ARGUMENT) that names the key, the value and what is allowed."""
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _invalid(f"params is not JSON: {error}") from None
    if not isinstance(values, dict):
        raise _invalid(f"params must be a JSON object, not {_shown(values)}")
    if "describe" in values:
        if values != {"describe": True}:
            raise _invalid('describe stands alone: {"describe": true}')
        return Describe()
    if "acknowledge" in values:
        return _acknowledgement(values)
    if "cancel" in values:
        return _cancellation(values)
    unknown = sorted(values.keys() - _KEYS)
    if unknown:
        raise _invalid(f"params has an unknown key {unknown[0]!r}; known are {', '.join(sorted(_KEYS))}")
    # An explicit null is an absent key.
    given = {key: value for key, value in values.items() if value is not None}
    params = Params(**{key: _READERS[key](key, value) for key, value in given.items()}, given=frozenset(given))
    if params.max_tokens is not None and params.min_tokens > params.max_tokens:
        raise _invalid(f"min_tokens={params.min_tokens} is more than max_tokens={params.max_tokens}")
    return params


def output_limit(prompt_tokens: int, params: Params, context_length: int) -> int:
    """How many tokens may be generated. Raises RequestError when prompt and answer do not fit the context."""
    if prompt_tokens == 0:
        raise _invalid("the prompt is empty; it needs at least one token")
    if prompt_tokens >= context_length:
        raise RequestError(
            "CONTEXT_LENGTH_EXCEEDED",
            f"the prompt has {prompt_tokens} tokens, which leaves no room for an answer in the model's context of "
            f"{context_length}; shorten it",
        )
    room = context_length - prompt_tokens
    wanted = max(params.max_tokens or 0, params.min_tokens)
    if wanted > room:
        raise RequestError(
            "CONTEXT_LENGTH_EXCEEDED",
            f"{prompt_tokens} prompt tokens and {wanted} tokens to generate are {prompt_tokens + wanted}, more than "
            f"the model's context of {context_length}; shorten the prompt or ask for at most {room}",
        )
    return params.max_tokens or room


def reject_unknown_tokens(named: str, ids: Iterable[int], vocabulary: int) -> None:
    """Raise RequestError for the first id outside 0 to `vocabulary` - 1."""
    for token_id in ids:
        if not 0 <= token_id < vocabulary:
            raise _invalid(f"{named} has the token id {token_id}; the model's are 0 to {vocabulary - 1}")


def _acknowledgement(values: dict[str, Any]) -> Acknowledgement:
    match values:
        case {"acknowledge": {"request_id": str(request_id), "responses": int(responses)}} if len(values) == 1:
            return Acknowledgement(request_id, responses)
    raise _invalid('acknowledge stands alone: {"acknowledge": {"request_id": ID, "responses": COUNT}}')


def _cancellation(values: dict[str, Any]) -> Cancellation:
    match values:
        case {"cancel": {"request_id": str(request_id)}} if len(values) == 1:
            return Cancellation(request_id)
    raise _invalid('cancel stands alone: {"cancel": {"request_id": ID}}')


def _integer(least: int, most: int) -> Callable[[str, Any], int]:
    def read(key: str, value: Any) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise _invalid(f"{key}={_shown(value)}: expected an integer from {least} to {most}")
        return value

    return read


def _number(least: float, most: float, *, above: bool = False) -> Callable[[str, Any], float]:
    def read(key: str, value: Any) -> float:
        is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        if not is_number or not least <= value <= most or (above and value == least):
            raise _invalid(
                f"{key}={_shown(value)}: expected a number {'above' if above else 'from'} {least:g} to {most:g}"
            )
        return float(value)

    return read


def _temperature(key: str, value: Any) -> float:
    temperature = _number(0, 2)(key, value)
    return temperature if temperature >= LEAST_TEMPERATURE else 0.0


def _top_p(key: str, value: Any) -> float:
    return max(LEAST_TOP_P, _number(0, 1, above=True)(key, value))


def _boolean(key: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise _invalid(f"{key}={_shown(value)}: expected true or false")
    return value


def _string(key: str, value: Any) -> str:
    if not isinstance(value, str):
        raise _invalid(f"{key}={_shown(value)}: expected a string")
    return value


def _token_ids(key: str, value: Any) -> frozenset[int]:
    if not isinstance(value, list):
        raise _invalid(f"{key}={_shown(value)}: expected a list of token ids")
    return frozenset(_token_id(f"{key}[{i}]", v) for i, v in enumerate(value))


def _logit_bias(key: str, value: Any) -> tuple[tuple[int, float], ...]:
    if not isinstance(value, dict) or len(value) > MAX_LOGIT_BIASES:
        raise _invalid(f"{key}={_shown(value)}: expected an object of at most {MAX_LOGIT_BIASES} token ids")
    if not all(token_id.isdecimal() for token_id in value):
        raise _invalid(f"{key}={_shown(value)}: expected token ids as keys")
    return tuple((_token_id(key, int(i)), _bias(f"{key}.{i}", bias)) for i, bias in value.items())


def _image_sizes(key: str, value: Any) -> tuple[tuple[int, int], ...]:
    match value:
        case [*pairs] if all(isinstance(pair, list) and len(pair) == 2 for pair in pairs):
            return tuple((_side(key, width), _side(key, height)) for width, height in pairs)
    raise _invalid(f"{key}={_shown(value)}: expected a list of pairs of width and height")


def _structured_output(key: str, value: Any) -> StructuredOutput:
    if not isinstance(value, dict) or len(value) != 1 or not value.keys() <= set(STRUCTURED_OUTPUT_KINDS):
        raise _invalid(f"{key}={_shown(value)}: expected an object with one of {', '.join(STRUCTURED_OUTPUT_KINDS)}")
    ((kind, form),) = value.items()
    if kind == "json_object":
        if form is not True:
            raise _invalid(f"{key}.json_object={_shown(form)}: expected true")
        return StructuredOutput(kind, "")
    if kind in ("json", "structural_tag") and isinstance(form, dict | bool):
        return StructuredOutput(kind, json.dumps(form))
    return StructuredOutput(kind, _string(f"{key}.{kind}", form))


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _invalid(message: str) -> RequestError:
    return RequestError("INVALID_ARGUMENT", message)


_INT32: Final = 2**31 - 1
_token_id = _integer(0, _INT32)
_bias = _number(-100, 100)
_side = _integer(1, 65_535)
_READERS: Final[dict[str, Callable[[str, Any], Any]]] = {
    "max_tokens": _integer(1, _INT32),
    "min_tokens": _integer(0, _INT32),
    "temperature": _temperature,
    "top_p": _top_p,
    "top_k": _integer(0, _INT32),
    "min_p": _number(0, 1),
    "frequency_penalty": _number(-2, 2),
    "presence_penalty": _number(-2, 2),
    "repetition_penalty": _number(LEAST_REPETITION_PENALTY, 2),
    "seed": _integer(-(2**63), 2**63 - 1),
    "stop_token_ids": _token_ids,
    "ignore_eos": _boolean,
    "logprobs": _integer(0, MAX_TOP_LOGPROBS),
    "structured_output": _structured_output,
    "logit_bias": _logit_bias,
    "image_sizes": _image_sizes,
    "cache_salt": _string,
    "priority": _integer(-_INT32 - 1, _INT32),
    "window": _integer(1, _INT32),
}
