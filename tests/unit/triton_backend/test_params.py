from __future__ import annotations

import json
import re
from typing import Any

import pytest

from services.inference.triton_backend.contract import (
    ALL_PARAMETERS,
    Acknowledgement,
    Calls,
    Describe,
    Params,
    Step,
    StructuredOutput,
    output_limit,
)
from services.inference.triton_backend.params_parser import parse
from services.worker.triton_kit.request_error import RequestError


def read(values: Any) -> Params:
    params = parse(json.dumps(values))
    assert isinstance(params, Params)
    return params


def test_every_parameter_is_read() -> None:
    values = {
        "max_tokens": 10,
        "min_tokens": 2,
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 40,
        "min_p": 0.05,
        "frequency_penalty": -1,
        "presence_penalty": 1.5,
        "repetition_penalty": 1.1,
        "seed": -(2**63),
        "stop_token_ids": [2, 0],
        "ignore_eos": True,
        "logprobs": 20,
        "prompt_logprobs": 2,
        "structured_output": {"regex": "a+"},
        "calls": {"opening": "<c>", "closing": "</c>", "schema": {"type": "object"}, "parallel": False},
        "logit_bias": {"7": -100, "8": 0.5},
        "cache_salt": "tenant",
        "priority": -3,
        "window": 4,
        "trace_headers": {"traceparent": "00-1-2-01", "tracestate": "a=1"},
        "step": {"stream": "s-1", "request": 7},
    }
    assert values.keys() == ALL_PARAMETERS
    params = read({**values, "image_sizes": [[64, 32], [28, 28]]})
    assert params.names == ALL_PARAMETERS | {"image_sizes"}
    assert params.image_sizes == ((64, 32), (28, 28))
    assert params.stop_token_ids == {0, 2}
    assert params.structured_output == StructuredOutput("regex", "a+")
    assert params.logit_bias == ((7, -100.0), (8, 0.5))
    assert params.frequency_penalty == -1.0
    assert params.calls == Calls("<c>", "</c>", '{"type": "object"}', parallel=False)
    assert params.step == Step("s-1", 7)
    assert params.trace_headers == (("traceparent", "00-1-2-01"), ("tracestate", "a=1"))
    simple = values.keys() - {"stop_token_ids", "structured_output", "calls", "logit_bias", "trace_headers", "step"}
    assert {key: getattr(params, key) for key in simple} == {key: values[key] for key in simple}


def test_the_defaults_have_no_effect() -> None:
    assert read({}) == Params()
    assert read({"seed": None}).names == frozenset()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"tempo": 1}, "unknown key 'tempo'"),
        ({"image_sizes": [64, 32]}, "pairs of width and height"),
        ({"trace_headers": {"baggage": "a=1"}}, "an object of traceparent and tracestate"),
        ({"trace_headers": {"traceparent": 1}}, "trace_headers.traceparent=1: expected a string"),
        ({"image_sizes": [[64, 0]]}, "image_sizes=0: expected an integer from 1"),
        ({"temperature": 2.5}, "temperature=2.5: expected a number from 0 to 2"),
        ({"temperature": "hot"}, 'temperature="hot": expected a number'),
        ({"temperature": True}, "temperature=true: expected a number"),
        ({"temperature": float("nan")}, "temperature=NaN: expected a number"),
        ({"top_p": 0}, "top_p=0: expected a number above 0 to 1"),
        ({"top_k": -1}, "top_k=-1: expected an integer"),
        ({"top_k": 1.5}, "top_k=1.5: expected an integer"),
        ({"max_tokens": 0}, "max_tokens=0: expected an integer from 1"),
        ({"max_tokens": True}, "max_tokens=true: expected an integer"),
        ({"max_tokens": 2, "min_tokens": 3}, "min_tokens=3 is more than max_tokens=2"),
        ({"repetition_penalty": 0}, "repetition_penalty=0: expected a number from 0.01 to 2"),
        ({"seed": 2**63}, "seed=9223372036854775808: expected an integer"),
        ({"ignore_eos": 1}, "ignore_eos=1: expected true or false"),
        ({"stop_token_ids": 2}, "stop_token_ids=2: expected a list"),
        ({"stop_token_ids": [1, -1]}, r"stop_token_ids\[1\]=-1: expected an integer"),
        ({"logprobs": 21}, "logprobs=21: expected an integer from 0 to 20"),
        ({"logit_bias": {"x": 1}}, "expected token ids as keys"),
        ({"logit_bias": {"7": 101}}, r"logit_bias\.7=101: expected a number from -100 to 100"),
        ({"logit_bias": {str(i): 1 for i in range(1025)}}, "at most 1024 token ids"),
        ({"structured_output": {"json": {}, "regex": "a"}}, "expected an object with one of json, regex"),
        ({"calls": {"opening": "<c>"}}, "expected an object of opening, closing, schema and parallel"),
        ({"calls": {"opening": "", "closing": "a", "schema": {}, "parallel": True}}, "expected an object of opening"),
        ({"structured_output": {"xml": "a"}}, "expected an object with one of"),
        ({"structured_output": {"regex": 1}}, r"structured_output\.regex=1: expected a string"),
        ({"structured_output": {"json_object": False}}, r"structured_output\.json_object=false: expected true"),
        ({"cache_salt": 5}, "cache_salt=5: expected a string"),
        ({"window": 0}, "window=0: expected an integer from 1"),
        ({"describe": True, "max_tokens": 1}, "describe stands alone"),
        ({"acknowledge": {"request_id": 1, "responses": 1}}, "acknowledge stands alone"),
        ([], "must be a JSON object"),
    ],
)
def test_an_invalid_parameter_is_named(values: Any, message: str) -> None:
    with pytest.raises(RequestError) as rejection:
        parse(json.dumps(values))
    assert rejection.value.message_id == "engine_parameters_not_valid"
    assert re.search(message, str(rejection.value.parameters["reason"]))
    assert rejection.value.reason == "INVALID_ARGUMENT"
    assert str(rejection.value).startswith("INVALID_ARGUMENT: ")


@pytest.mark.parametrize("text", ["{", "", "[" * 100_000, "nul"])
def test_text_that_is_not_json_is_rejected(text: str) -> None:
    with pytest.raises(RequestError) as rejection:
        parse(text)
    assert rejection.value.message_id == "engine_parameters_not_valid"
    assert "not JSON" in str(rejection.value.parameters["reason"])


def test_a_schema_may_be_an_object_or_text() -> None:
    assert read({"structured_output": {"json": {"type": "object"}}}).structured_output == StructuredOutput(
        "json", '{"type": "object"}'
    )
    assert read({"structured_output": {"json": '{"type":"object"}'}}).structured_output == StructuredOutput(
        "json", '{"type":"object"}'
    )
    assert read({"structured_output": {"json_object": True}}).structured_output == StructuredOutput("json_object", "")


def test_control_requests_are_parsed() -> None:
    assert parse('{"describe": true}') == Describe()
    assert parse('{"acknowledge": {"request_id": "a", "responses": 3}}') == Acknowledgement("a", 3)


@pytest.mark.parametrize(
    ("prompt", "params", "limit"),
    [(10, {}, 90), (10, {"max_tokens": 5}, 5), (10, {"max_tokens": 90}, 90), (99, {}, 1)],
)
def test_the_output_limit_is_what_the_context_leaves(prompt: int, params: dict[str, Any], limit: int) -> None:
    assert output_limit(prompt, read(params), 100) == limit


@pytest.mark.parametrize(
    ("prompt", "params"), [(100, {}), (101, {}), (10, {"max_tokens": 91}), (99, {"min_tokens": 2})]
)
def test_a_prompt_that_leaves_no_capacity_is_rejected(prompt: int, params: dict[str, Any]) -> None:
    with pytest.raises(RequestError, match="100") as rejection:
        output_limit(prompt, read(params), 100)
    assert rejection.value.reason == "CONTEXT_LENGTH_EXCEEDED"
