"""Parses the JSON text `params` of a request: see contract.py."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any, Final

from services.inference.triton_backend.contract import (
    LEAST_REPETITION_PENALTY,
    LEAST_TEMPERATURE,
    LEAST_TOP_P,
    MAX_LOGIT_BIASES,
    MAX_TOP_LOGPROBS,
    PARAMETER_NAMES,
    STRUCTURED_OUTPUT_KINDS,
    Acknowledgement,
    Calls,
    Cancellation,
    Describe,
    OpenSteps,
    Params,
    Step,
    StepAcknowledgement,
    StepCancellation,
    StructuredOutput,
    invalid,
)

Control = Describe | Acknowledgement | Cancellation | OpenSteps | StepAcknowledgement | StepCancellation


def parse(text: str) -> Params | Control:
    """Read `params`. Raises RequestError (INVALID_ARGUMENT) that names the key, the value and what is allowed."""
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise invalid(f"params is not JSON: {error}") from None
    if not isinstance(values, dict):
        raise invalid(f"params must be a JSON object, not {_rendered(values)}")
    if "describe" in values:
        if values != {"describe": True}:
            raise invalid('describe stands alone: {"describe": true}')
        return Describe()
    if "open_steps" in values:
        if values != {"open_steps": True}:
            raise invalid('open_steps stands alone: {"open_steps": true}')
        return OpenSteps()
    if "acknowledge" in values:
        return _acknowledgement(values)
    if "cancel" in values:
        return _cancellation(values)
    unknown = sorted(values.keys() - PARAMETER_NAMES)
    if unknown:
        raise invalid(f"params has an unknown key {unknown[0]!r}; known are {', '.join(sorted(PARAMETER_NAMES))}")
    # An explicit null is an absent key.
    set_values = {key: value for key, value in values.items() if value is not None}
    params = Params(
        **{key: _READERS[key](key, value) for key, value in set_values.items()}, names=frozenset(set_values)
    )
    if params.max_tokens is not None and params.min_tokens > params.max_tokens:
        raise invalid(f"min_tokens={params.min_tokens} is more than max_tokens={params.max_tokens}")
    return params


def _acknowledgement(values: dict[str, Any]) -> Acknowledgement | StepAcknowledgement:
    match values:
        case {"acknowledge": {"stream": str(stream), "responses": dict(counts)}} if len(values) == 1:
            if all(number.isdecimal() and isinstance(count, int) for number, count in counts.items()):
                return StepAcknowledgement(stream, tuple((int(number), count) for number, count in counts.items()))
        case {"acknowledge": {"request_id": str(request_id), "responses": int(responses)}} if len(values) == 1:
            return Acknowledgement(request_id, responses)
    raise invalid('acknowledge stands alone: {"acknowledge": {"request_id": ID, "responses": COUNT}}')


def _cancellation(values: dict[str, Any]) -> Cancellation | StepCancellation:
    match values:
        case {"cancel": {"stream": str(stream), "requests": [*requests]}} if len(values) == 1:
            if all(isinstance(number, int) for number in requests):
                return StepCancellation(stream, tuple(requests))
        case {"cancel": {"request_id": str(request_id)}} if len(values) == 1:
            return Cancellation(request_id)
    raise invalid('cancel stands alone: {"cancel": {"request_id": ID}}')


def _integer(least: int, most: int) -> Callable[[str, Any], int]:
    def read(key: str, value: Any) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise invalid(f"{key}={_rendered(value)}: expected an integer from {least} to {most}")
        return value

    return read


def _number(least: float, most: float, *, above: bool = False) -> Callable[[str, Any], float]:
    def read(key: str, value: Any) -> float:
        is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        if not is_number or not least <= value <= most or (above and value == least):
            raise invalid(
                f"{key}={_rendered(value)}: expected a number {'above' if above else 'from'} {least:g} to {most:g}"
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
        raise invalid(f"{key}={_rendered(value)}: expected true or false")
    return value


def _string(key: str, value: Any) -> str:
    if not isinstance(value, str):
        raise invalid(f"{key}={_rendered(value)}: expected a string")
    return value


def _token_ids(key: str, value: Any) -> frozenset[int]:
    if not isinstance(value, list):
        raise invalid(f"{key}={_rendered(value)}: expected a list of token ids")
    return frozenset(_token_id(f"{key}[{i}]", v) for i, v in enumerate(value))


def _logit_bias(key: str, value: Any) -> tuple[tuple[int, float], ...]:
    if not isinstance(value, dict) or len(value) > MAX_LOGIT_BIASES:
        raise invalid(f"{key}={_rendered(value)}: expected an object of at most {MAX_LOGIT_BIASES} token ids")
    if not all(token_id.isdecimal() for token_id in value):
        raise invalid(f"{key}={_rendered(value)}: expected token ids as keys")
    return tuple((_token_id(key, int(i)), _bias(f"{key}.{i}", bias)) for i, bias in value.items())


def _image_sizes(key: str, value: Any) -> tuple[tuple[int, int], ...]:
    match value:
        case [*pairs] if all(isinstance(pair, list) and len(pair) == 2 for pair in pairs):
            return tuple((_side(key, width), _side(key, height)) for width, height in pairs)
    raise invalid(f"{key}={_rendered(value)}: expected a list of pairs of width and height")


def _step(key: str, value: Any) -> Step:
    match value:
        case {"stream": str(stream), "request": int(request)} if len(value) == 2 and 0 <= request <= _INT32:
            return Step(stream, request)
    raise invalid(f"{key}={_rendered(value)}: expected an object of stream and request")


def _trace_headers(key: str, value: Any) -> tuple[tuple[str, str], ...]:
    if isinstance(value, dict) and value.keys() <= _TRACE_HEADERS:
        return tuple((name, _string(f"{key}.{name}", text)) for name, text in value.items())
    raise invalid(f"{key}={_rendered(value)}: expected an object of traceparent and tracestate")


def _structured_output(key: str, value: Any) -> StructuredOutput:
    if not isinstance(value, dict) or len(value) != 1 or not value.keys() <= set(STRUCTURED_OUTPUT_KINDS):
        raise invalid(f"{key}={_rendered(value)}: expected an object with one of {', '.join(STRUCTURED_OUTPUT_KINDS)}")
    ((kind, form),) = value.items()
    if kind == "json_object":
        if form is not True:
            raise invalid(f"{key}.json_object={_rendered(form)}: expected true")
        return StructuredOutput(kind, "")
    if kind in ("json", "structural_tag") and isinstance(form, dict | bool):
        return StructuredOutput(kind, json.dumps(form))
    return StructuredOutput(kind, _string(f"{key}.{kind}", form))


def _calls(key: str, value: Any) -> Calls:
    match value:
        case {"opening": str(opening), "closing": str(closing), "schema": dict(schema), "parallel": bool(parallel)} if (
            len(value) == 4 and opening and closing
        ):
            return Calls(opening, closing, json.dumps(schema), parallel)
    raise invalid(f"{key}={_rendered(value)}: expected an object of opening, closing, schema and parallel")


def _rendered(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else text[:77] + "..."


_INT32: Final = 2**31 - 1
_TRACE_HEADERS: Final = {"traceparent", "tracestate"}
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
    "prompt_logprobs": _integer(0, MAX_TOP_LOGPROBS),
    "structured_output": _structured_output,
    "calls": _calls,
    "logit_bias": _logit_bias,
    "image_sizes": _image_sizes,
    "cache_salt": _string,
    "priority": _integer(-_INT32 - 1, _INT32),
    "window": _integer(1, _INT32),
    "trace_headers": _trace_headers,
    "step": _step,
}
