"""The contract of the language model in Triton: its requests and responses, and the interface of an engine.

`params` is JSON text, which params_parser.py reads. It is one of the control requests below, or the fields of `Params`:

* `{"describe": true}` answers with the tensor `description`, a JSON object of `engine`, `version`,
  `structured_output_library` and `structured_output_library_version` (empty without structured output),
  `supported_parameters`, `context_length`, `slots` and `load`, which has the fields of `Load`;
* `{"acknowledge": {"request_id": ID, "responses": COUNT}}` says how many responses of a running request were read;
* `{"cancel": {"request_id": ID}}` stops a running request, which then ends with the finish reason `cancelled`.
  Cancelling the gRPC call works too, but in Triton before 24.12 it can crash the server when it crosses an answer
  (triton-inference-server/server#7840);
* `{"open_steps": true}` opens a stream of steps, whose name is the id of this request.

A generation has a stream of its own, or takes part in a stream of steps, which its `step` names. Then it is answered by
an empty final response when it is accepted, or by an error, and its output comes in the responses of the stream:

* `step_requests` and `step_counts` are the numbers of the requests that have output, and their numbers of tokens;
* `token_ids` are the tokens of all of them, one request after another, and with log probabilities, `logprobs` too (NaN
  where a request wants none); `step_top_counts` has the number of alternatives of each token (-1 where a request wants
  none), which follow each other in `step_top_token_ids` and `step_top_logprobs`;
* `step_begins` are JSON objects of requests with their first tokens: `request` and `cached_tokens`, where it is known;
* `step_ends` are JSON objects of the requests that have ended: `request`, and either `finish_reason` and `usage`, or
  `error`. A request has no output after its end.

An entry of `step_requests` is what a response is to a request with a stream of its own: the window counts it. Control
requests name the stream: `{"acknowledge": {"stream": NAME, "responses": {NUMBER: COUNT, …}}}` and
`{"cancel": {"stream": NAME, "requests": [NUMBER, …]}}`. `{"cancel": {"request_id": NAME}}` cancels all requests of a
stream and ends it, and so does the end of the gRPC call. A stream without requests ends after a second; a request that
names an ended stream is rejected with STREAM_ENDED.

A response without tokens and without a finish reason says that the engine is reading the request's prompt. The first
one with tokens may have `usage` with `cached_tokens` alone.

A request that is rejected or fails ends with a RequestError, whose reason is one of INVALID_ARGUMENT,
UNSUPPORTED_PARAMETER, CONTEXT_LENGTH_EXCEEDED, OVERLOADED, STREAM_ENDED and ENGINE_FAILED.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from typing import Any, Final, Protocol

from services.worker.triton_kit.request_error import RequestError

MAX_TOP_LOGPROBS: Final = 20
MAX_LOGIT_BIASES: Final = 1024
LEAST_TEMPERATURE: Final = 1e-3
"""The least temperature but 0. Logits divided by much smaller numbers are not finite."""
LEAST_TOP_P: Final = 1e-6
LEAST_REPETITION_PENALTY: Final = 0.01
STRUCTURED_OUTPUT: Final = "structured_output"
"""The field of messages about structured output. The worker replaces it by the one of its request."""
STREAM_ENDED: Final = "STREAM_ENDED"
"""The reason with which a request is rejected whose stream of steps does not exist (any more)."""
STRUCTURED_OUTPUT_KINDS: Final = ("json", "regex", "grammar", "json_object", "structural_tag")


@dataclass(frozen=True, slots=True)
class StructuredOutput:
    """The structure that the generated text must have."""

    kind: str
    """One of STRUCTURED_OUTPUT_KINDS."""
    text: str
    """The JSON Schema, regular expression, grammar or structural tag; empty for `json_object`."""


@dataclass(frozen=True, slots=True)
class Step:
    """A request's part of a stream of steps."""

    stream: str
    """The name of the stream: the id of the request that opened it."""
    request: int
    """The number of the request in the stream."""


@dataclass(frozen=True, slots=True)
class Calls:
    """The calls that may be in the generated text: JSON objects, each between two tags."""

    opening: str
    closing: str
    schema: str
    """The JSON Schema of a call."""
    parallel: bool
    """Whether there may be several."""


@dataclass(frozen=True, slots=True)
class Params:
    """The parameters of a generation. The default of each field has no effect."""

    max_tokens: int | None = None
    """The most tokens to generate, at least 1. None: up to the end of the context."""
    min_tokens: int = 0
    """The fewest tokens to generate before anything ends the generation.

    An engine that can forbids the end tokens until then. For another one, those that are not the tokenizer's own are
    ordinary tokens until then.
    """
    temperature: float = 1.0
    """0, which always chooses the most probable token, to 2. Values below LEAST_TEMPERATURE count as 0."""
    top_p: float = 1.0
    """Choose among the most probable tokens with this total probability: above 0, up to 1; at least LEAST_TOP_P."""
    top_k: int = 0
    """Choose among this many most probable tokens. 0: among all."""
    min_p: float = 0.0
    """Choose among tokens with at least this share of the most probable token's probability: 0 to 1."""
    frequency_penalty: float = 0.0
    """Subtracted from a token's logit for each of its occurrences in the generation: -2 to 2."""
    presence_penalty: float = 0.0
    """Subtracted from a token's logit if it occurs in the generation: -2 to 2."""
    repetition_penalty: float = 1.0
    """Divides the logits of tokens of the prompt and the generation: LEAST_REPETITION_PENALTY to 2."""
    seed: int | None = None
    """Makes sampling repeatable as far as the engine allows. Any 64-bit integer."""
    stop_token_ids: frozenset[int] = frozenset()
    """Tokens that end the generation. The token that did is the last one of `token_ids`."""
    ignore_eos: bool = False
    """Whether the generation goes on after an end-of-sequence token."""
    logprobs: int | None = None
    """None: no log probabilities. 0: those of chosen tokens. Up to 20: also those of this many most probable tokens."""
    prompt_logprobs: int | None = None
    """Like `logprobs`, of the prompt, in the first response with tokens. The first token has none: it has 0."""
    structured_output: StructuredOutput | None = None
    """The structure that the text must have, from its first token."""
    calls: Calls | None = None
    """The notation and the schema of calls: from an opening tag on, the text is a call, and the rest of it is free.

    With a `structured_output`, which is of the kind `json`, `regex`, `json_object` or `grammar` (in GBNF) then, the
    text is either calls alone or the structured output.
    """
    logit_bias: tuple[tuple[int, float], ...] = ()
    """Pairs of a token and the number that is added to its logit, -100 to 100."""
    image_sizes: tuple[tuple[int, int], ...] = ()
    """Width and height in pixels to which each image is resized before the model's preprocessing. Empty: unchanged."""
    cache_salt: str = ""
    """Requests with different salts never share entries of the prefix cache."""
    priority: int = 0
    """A larger priority goes first among waiting requests."""
    window: int | None = None
    """The most responses sent but not acknowledged; then the generation pauses. None: it never pauses."""
    trace_headers: tuple[tuple[str, str], ...] = ()
    """The headers `traceparent` and `tracestate` of the caller's span, for engines that trace requests themselves."""
    step: Step | None = None
    """The stream of steps that has the output. None: the request has a stream of its own."""
    names: frozenset[str] = field(default=frozenset(), compare=False)
    """Names of the fields that the request has set."""


@dataclass(frozen=True, slots=True)
class Acknowledgement:
    """Reports the number of responses of a running request that its reader has read."""

    request_id: str
    responses: int
    """The number since the request's start."""


@dataclass(frozen=True, slots=True)
class Cancellation:
    """Stops a running request."""

    request_id: str


@dataclass(frozen=True, slots=True)
class StepAcknowledgement:
    """Reports the number of entries that the reader of a stream of steps has read of its requests."""

    stream: str
    responses: tuple[tuple[int, int], ...]
    """Pairs of a request's number and the number of entries since its start."""


@dataclass(frozen=True, slots=True)
class StepCancellation:
    """Stops running requests of a stream of steps."""

    stream: str
    requests: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class OpenSteps:
    """Opens a stream of steps."""


@dataclass(frozen=True, slots=True)
class Describe:
    """Requests the description of the model and its load."""


@dataclass(frozen=True, slots=True)
class Request:
    """A request for one generation."""

    params: Params
    prompt_token_ids: list[int] = field(default_factory=list)
    text_input: str | None = None
    """The prompt as text, instead of token ids."""
    images: tuple[bytes, ...] = ()
    """Encoded images, in the order of the prompt."""
    arrived: float = field(default_factory=time.monotonic)
    """The time of arrival on the monotonic clock, in seconds."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """Generated tokens. Lists have one entry per token, and are None if the request did not ask for them."""

    token_ids: list[int]
    logprobs: list[float] | None = None
    top: list[list[tuple[int, float]]] | None = None
    """For each token, the most probable ones, best first, as pairs of id and log probability."""
    prompt: Tokens | None = None
    """The prompt's tokens, with the first generated ones, if the request asked for their log probabilities."""
    cached_tokens: int | None = None
    """In the first tokens of a request: how many of the prompt's tokens came from the prefix cache, if it is known."""


@dataclass(slots=True)
class Usage:
    """The usage of a request. Times are in seconds."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    queued_s: float = 0.0
    prefill_s: float = 0.0
    decode_s: float = 0.0
    first_token_s: float = 0.0
    """The time from arrival to the first token; 0 without tokens."""

    def as_json(self) -> dict[str, Any]:
        """Return the JSON object of the `usage` tensor."""
        timings = {
            name: round(getattr(self, name), 6) for name in ("queued_s", "prefill_s", "decode_s", "first_token_s")
        }
        counts = {name: getattr(self, name) for name in ("prompt_tokens", "completion_tokens", "cached_tokens")}
        return {**counts, "timings": timings}

    def to_json(self) -> str:
        """Return the text of the `usage` tensor."""
        return json.dumps(self.as_json(), separators=(",", ":"))


@dataclass(frozen=True, slots=True)
class Load:
    """The load of an engine."""

    in_flight: int
    queued: int
    kv_cache_use: float | None
    """The share of the KV cache in use, 0 to 1. None if the engine does not know it."""
    last_token_age_s: float | None
    """Seconds since the last token; None before the first one."""
    tokens_per_second: float
    """The average of the last ten seconds."""
    cancelled_total: int
    generated_tokens_total: int
    step_age_s: float | None = None
    """Seconds since the engine last made progress while it has something to compute.

    None while it is idle, or while every request waits for its reader, its images or its structured output.
    """
    slow_steps_total: int = 0
    """The number of steps that took longer than a second, in which no request had a token."""
    prefix_cache_hit_rate: float | None = None
    """The share of prompts that was found in the prefix cache, 0 to 1. None if the engine does not know it."""


class Sink(Protocol):
    """Receives the output of one request. Methods may be called from any thread, and never block long."""

    def has_capacity(self) -> bool:
        """Return False while the reader is behind: then emit nothing, and pause the generation if the engine can."""

    def is_cancelled(self) -> bool:
        """Return whether the request was cancelled."""

    def note_progress(self) -> None:
        """Note that the prompt is being read. From time to time, the reader gets a response without tokens."""

    def emit(self, tokens: Tokens) -> None:
        """Send tokens. Tokens that wait to be sent share a response."""

    def finish(self, finish_reason: str, usage: Usage, last: Tokens | None = None) -> None:
        """Send the last tokens, and end the request with `stop`, `length` or `cancelled`. No call may follow."""

    def fail(self, error: RequestError) -> None:
        """End the request with an error. No call may follow."""


class Engine(Protocol):
    """Generates tokens. `submit` returns at once; the engine works in threads or an event loop of its own."""

    name: str
    version: str
    supported_parameters: frozenset[str]
    """Names of `Params` fields, and `images`. A request with another one is rejected before it reaches the engine."""
    context_length: int
    """The most tokens of prompt and generation together."""
    slots: int
    """The number of requests that the engine works on at once."""
    structured_output_library: str
    """The library that compiles structured outputs; empty if there is none."""
    structured_output_library_version: str

    def submit(self, request: Request, sink: Sink) -> None:
        """Start or queue a request. Raises RequestError if it is rejected; every later outcome goes to `sink`."""

    def wake(self) -> None:
        """Check all requests soon, because a sink has capacity again or a request was cancelled."""

    def load(self) -> Load:
        """Return the load. Raises RequestError if the engine has failed for good."""

    def close(self) -> None:
        """Fail all requests, and stop all threads."""


SUPPORTED_BY_ALL: Final = frozenset({"window", "step", "trace_headers"})
VISION: Final = frozenset({"images", "image_sizes"})
"""The tensor, and the parameter about it, that an engine with vision supports besides the other parameters."""
PARAMETER_NAMES: Final = frozenset(f.name for f in fields(Params)) - {"names"}
ALL_PARAMETERS: Final = PARAMETER_NAMES - VISION
"""The parameters of text."""


def output_limit(prompt_tokens: int, params: Params, context_length: int) -> int:
    """Return the most tokens that may be generated. Raises RequestError if the generation does not fit the context."""
    if prompt_tokens == 0:
        raise RequestError("INVALID_ARGUMENT", "prompt_empty")
    if prompt_tokens >= context_length:
        raise RequestError("CONTEXT_LENGTH_EXCEEDED", "engine_context_full", value=prompt_tokens, limit=context_length)
    remaining = context_length - prompt_tokens
    requested = max(params.max_tokens or 0, params.min_tokens)
    if requested > remaining:
        raise RequestError(
            "CONTEXT_LENGTH_EXCEEDED",
            "engine_context_exceeded",
            prompt=prompt_tokens,
            requested=requested,
            value=prompt_tokens + requested,
            limit=context_length,
            most=remaining,
        )
    return params.max_tokens or remaining


def reject_unknown_tokens(named: str, ids: Iterable[int], vocabulary: int) -> None:
    """Raise RequestError for the first id outside 0 to `vocabulary` - 1."""
    for token_id in ids:
        if not 0 <= token_id < vocabulary:
            raise RequestError(
                "INVALID_ARGUMENT", "engine_token_id_unknown", parameter=named, value=token_id, limit=vocabulary - 1
            )


def invalid(problem: str) -> RequestError:
    """Return an error for a request that the worker must not send."""
    return RequestError("INVALID_ARGUMENT", "engine_parameters_not_valid", reason=problem)
