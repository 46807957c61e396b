"""The engine llamacpp compiles a structured output once, and every request starts at its beginning."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from bench.trtllm.subject import Reader
from services.inference.request.structured_output.call_schema import call_schema
from services.inference.triton_backend.contract import Params, Request, StructuredOutput
from services.inference.triton_backend.engines import llama_compilations, llama_structured_output
from services.inference.triton_backend.engines.llama_candidates import Candidates
from services.inference.triton_backend.engines.llama_structured_output import StructuredOutputs
from services.inference.triton_backend.engines.llamacpp import LlamaCppEngine
from services.inference.triton_backend.held_calls import as_lark, with_calls
from services.inference.triton_backend.params_parser import parse
from services.worker.triton_kit.request_error import RequestError
from tests.support.models import smollm2


@pytest.fixture(scope="module")
def engine() -> Iterator[LlamaCppEngine]:
    engine = LlamaCppEngine(model=str(smollm2() / "model.gguf"), context_length=256, slots=2)
    yield engine
    engine.close()


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[StructuredOutput]:
    """The structured outputs that are compiled during the test."""
    structured_outputs: list[StructuredOutput] = []
    original = StructuredOutputs._new_sampler

    def counted(self: StructuredOutputs, structured_output: StructuredOutput) -> Any:
        structured_outputs.append(structured_output)
        return original(self, structured_output)

    monkeypatch.setattr(StructuredOutputs, "_new_sampler", counted)
    return structured_outputs


def held_to(engine: LlamaCppEngine, kind: str, form: Any) -> str:
    return generated(engine, structured_output={kind: form}, max_tokens=60, temperature=1.0)


def generated(engine: LlamaCppEngine, **fields: Any) -> str:
    params = parse(json.dumps(fields))
    assert isinstance(params, Params)
    reader = Reader()
    engine.submit(Request(params, [1, 2, 3]), reader)
    ids = [i for i in reader.wait().token_ids if i not in engine._model.end_ids]
    return b"".join(_bytes(engine, i) for i in ids).decode()


def _bytes(engine: LlamaCppEngine, token_id: int) -> bytes:
    lib, ffi = engine._api.lib, engine._api.ffi
    piece = ffi.new("char[]", 64)
    count = lib.llama_token_to_piece(engine._model.vocab, token_id, piece, 64, 0, False)
    return bytes(ffi.buffer(piece, count))


@pytest.mark.parametrize(
    ("kind", "form"), [("regex", "(yes|no), [0-9]{3}"), ("grammar", 'root ::= ("yes" | "no") ", " [0-9]')]
)
def test_a_structured_output_is_compiled_once_and_each_request_starts_at_its_beginning(
    engine: LlamaCppEngine, made: list[StructuredOutput], kind: str, form: str
) -> None:
    for _ in range(4):
        answer = held_to(engine, kind, form)
        assert answer.split(", ")[0] in ("yes", "no")
        assert answer.split(", ")[1].isdigit()
    assert len(made) == 1


def test_the_least_recently_used_structured_outputs_are_dropped(
    engine: LlamaCppEngine, made: list[StructuredOutput]
) -> None:
    forms = [f"form {number}" for number in range(llama_structured_output.MOST_KEPT + 1)]
    for form in forms:
        assert held_to(engine, "regex", form) == form
        assert held_to(engine, "regex", forms[0]) == forms[0]
    assert len(made) == len(forms)
    assert held_to(engine, "regex", forms[1]) == forms[1]
    assert len(made) == len(forms) + 1
    assert len(engine._structured_outputs._kept) == llama_structured_output.MOST_KEPT


def test_an_invalid_structured_output_is_not_kept(engine: LlamaCppEngine, made: list[StructuredOutput]) -> None:
    for _ in range(2):
        with pytest.raises(RequestError) as rejection:
            held_to(engine, "regex", "(((")
        assert rejection.value.message_id == "structured_output_not_valid"
    assert not made, "the engine itself never makes what has not passed its trial"


def test_schemas_of_arguments_may_refer_to_their_definitions(engine: LlamaCppEngine) -> None:
    place = {"enum": ["Tehran", "Shiraz"]}
    inner = {"properties": {"place": {"$ref": "#/$defs/Place"}, "more": {"anyOf": [{"$ref": "#"}, {"type": "null"}]}}}
    schema = {**inner, "required": ["place", "more"], "additionalProperties": False, "$defs": {"Place": place}}
    answer = held_to(engine, "json", call_schema({"get.weather": schema, "get_time": {**schema, "$id": "x:y"}}))
    assert re.match(r'\{"name":"(get\.weather|get_time)","arguments":\{"place":"(Tehran|Shiraz)","more":', answer)


class SlowCompiler:
    """Compiles structured outputs once `may_end` is set."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun, self.may_end = threading.Event(), threading.Event()
        original = StructuredOutputs._new_sampler

        def slowly(structured_outputs: StructuredOutputs, structured_output: StructuredOutput) -> Any:
            self.begun.set()
            assert self.may_end.wait(20)
            return original(structured_outputs, structured_output)

        monkeypatch.setattr(StructuredOutputs, "_new_sampler", slowly)


@pytest.fixture
def compiler(monkeypatch: pytest.MonkeyPatch) -> Iterator[SlowCompiler]:
    slow = SlowCompiler(monkeypatch)
    yield slow
    slow.may_end.set()


def started(engine: LlamaCppEngine, **params: Any) -> Reader:
    parsed = parse(json.dumps({"max_tokens": 30, **params}))
    assert isinstance(parsed, Params)
    reader = Reader()
    engine.submit(Request(parsed, [1, 2, 3]), reader)
    return reader


def test_other_requests_go_on_while_a_structured_output_is_compiled(
    engine: LlamaCppEngine, compiler: SlowCompiler
) -> None:
    slow = started(engine, structured_output={"regex": "slow[0-9]"})
    assert compiler.begun.wait(20)
    assert started(engine).wait().reason
    assert engine.load().queued == 1
    compiler.may_end.set()
    assert slow.wait().reason == "stop"


def test_a_request_cancelled_during_compilation_ends_and_takes_no_slot(
    engine: LlamaCppEngine, compiler: SlowCompiler
) -> None:
    slow = [started(engine, structured_output={"regex": f"cancelled{i}"}) for i in range(engine.slots)]
    assert compiler.begun.wait(20)
    for reader in slow:
        reader.cancelled = True
        assert reader.wait().reason == "cancelled"
    assert started(engine).wait().reason


def test_a_structured_output_that_takes_too_long_is_rejected(
    engine: LlamaCppEngine, compiler: SlowCompiler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(llama_compilations, "STRUCTURED_OUTPUT_SECONDS", 0.1)
    with pytest.raises(RequestError) as rejection:
        started(engine, structured_output={"regex": "endless"}).wait()
    assert rejection.value.message_id == "structured_output_not_compiled"
    assert rejection.value.reason == "OVERLOADED", "the machine was too slow for what its trial allows"
    compiler.may_end.set()
    assert started(engine).wait().reason


CALLED = call_schema(
    {
        "weather": {"properties": {"city": {"enum": ["Tehran", "Shiraz"]}}, "required": ["city"]},
        "time": {"properties": {"zone": {"$ref": "#/$defs/Zone"}}, "$defs": {"Zone": {"type": "integer"}}},
    }
)
CALLS = {"opening": "<tool_call>", "closing": "</tool_call>", "schema": CALLED, "parallel": True}
A_CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "Shiraz"}}\n</tool_call>'


def allows(engine: LlamaCppEngine, text: str, **params: Any) -> bool:
    """Return whether the engine can write a text token by token, and then end it."""
    parsed = parse(json.dumps({"calls": CALLS, **params}))
    assert isinstance(parsed, Params)
    output = with_calls(Request(parsed, [1]), as_lark).params.structured_output
    assert output is not None
    sampler = engine._structured_outputs.copy_of(output)
    lib, candidates = engine._api.lib, Candidates(engine._api, engine._model.vocabulary)
    try:
        for token_id in [*engine._model.tokenize(text), None]:
            array = candidates.fill(np.zeros(engine._model.vocabulary, np.float32), [])
            lib.llama_sampler_apply(sampler, array)
            ids = engine._model.end_ids if token_id is None else {token_id}
            if candidates.allow_all() or not any(np.isfinite(candidates._rows["logit"][i]) for i in ids):
                return False
            if token_id is not None:
                lib.llama_sampler_accept(sampler, token_id)
        return True
    finally:
        lib.llama_sampler_free(sampler)


@pytest.mark.parametrize(
    ("text", "is_allowed"),
    [
        (A_CALL, True),
        (f"{A_CALL}\n{A_CALL}", True),
        (A_CALL.replace(": ", ":").replace(", ", ",").replace("\n", ""), True),
        ('{"city":"Qom"}', True),
        ('{"name":"weather"}', False),
        ("Hello", False),
        (f"Hello\n{A_CALL}", False),
        (A_CALL.replace("{", "{ "), False),
        (A_CALL.replace("Shiraz", "Paris"), False),
        (A_CALL.replace("weather", "news"), False),
        (f'{A_CALL}\n{{"city":"Qom"}}', False),
        (A_CALL[:-20], False),
    ],
)
def test_calls_beside_a_structured_output_are_the_one_or_the_other(
    engine: LlamaCppEngine, text: str, is_allowed: bool
) -> None:
    schema = {"properties": {"city": {"type": "string"}}, "required": ["city"], "additionalProperties": False}
    assert allows(engine, text, structured_output={"json": schema}) == is_allowed


WORDS = 'root ::= ("<" | "yes") [a-z]*'
TITLES = 'root ::= "<title>" root "</title>" | [a-z]*'
"""It is recursive, and begins like a call."""


@pytest.mark.parametrize(
    ("grammar", "text", "is_allowed"),
    [
        (WORDS, A_CALL, True),
        (WORDS, f"{A_CALL}\n{A_CALL}", True),
        (WORDS, "<tool", True),
        (WORDS, "yes", True),
        (WORDS, "no", False),
        (WORDS, A_CALL.replace("Shiraz", "Paris"), False),
        (WORDS, f"{A_CALL}yes", False),
        (TITLES, A_CALL, True),
        (TITLES, f"{A_CALL}\n{A_CALL}", True),
        (TITLES, "<title><title>a</title></title>", True),
        (TITLES, "<title>a</title></title>", False),
        (TITLES, "<tool>", False),
        (TITLES, A_CALL.replace("Shiraz", "Paris"), False),
        (TITLES, f"<title>{A_CALL}</title>", False),
    ],
)
def test_calls_beside_a_grammar_are_the_one_or_the_other(
    engine: LlamaCppEngine, grammar: str, text: str, is_allowed: bool
) -> None:
    assert allows(engine, text, structured_output={"grammar": grammar}) == is_allowed


@pytest.mark.parametrize(
    ("grammar", "message_id"),
    [("root ::= (", "grammar_syntax"), ('%llguidance {}\nstart: "a"', "engine_parameters_not_valid")],
)
def test_a_grammar_that_cannot_stand_beside_calls_is_rejected(
    engine: LlamaCppEngine, grammar: str, message_id: str
) -> None:
    with pytest.raises(RequestError) as rejection:
        allows(engine, "a", structured_output={"grammar": grammar})
    assert rejection.value.message_id == message_id


@pytest.mark.parametrize(
    ("text", "is_allowed"),
    [
        ("Hello! <b> { <tool", True),
        (A_CALL, True),
        (f"Let me see.\n\n{A_CALL}\nand {A_CALL} so", True),
        (A_CALL.replace("Shiraz", "Paris"), False),
        (f"{A_CALL} and {A_CALL.replace('weather', 'news')}", False),
        ("<tool_call>x", False),
        ("see <tool_call>", False),
    ],
)
def test_the_opening_of_a_call_in_free_text_begins_its_schema(
    engine: LlamaCppEngine, text: str, is_allowed: bool
) -> None:
    assert allows(engine, text) == is_allowed


@pytest.mark.parametrize("output", [None, {"json_object": True}, {"regex": "a/b|c\\/d"}])
def test_only_one_call_is_allowed_unless_calls_are_parallel(
    engine: LlamaCppEngine, output: dict[str, Any] | None
) -> None:
    params = {"calls": {**CALLS, "parallel": False}, "structured_output": output}
    assert allows(engine, A_CALL, **params)
    # In free text, a second opening is text, which the worker does not read.
    assert allows(engine, f"{A_CALL}\n{A_CALL}", **params) == (output is None)
    if output == {"regex": "a/b|c\\/d"}:
        assert allows(engine, "a/b", **params)
        assert not allows(engine, "a", **params)


def test_calls_are_generated_beside_a_structured_output(engine: LlamaCppEngine) -> None:
    for seed in range(4):
        text = generated(engine, calls=CALLS, structured_output={"regex": "yes|no"}, seed=seed, max_tokens=60)
        assert re.fullmatch(r"yes|no|(<tool_call>\n? ?\{(.|\n)*)", text)


@pytest.mark.parametrize(
    ("schema", "at", "value"),
    [
        ({"properties": {"name": {"pattern": "(?=a)b"}}}, ["properties", "name", "pattern"], '"(?=a)b"'),
        (
            {"properties": {"list": {"items": {"anyOf": [{"type": "null"}, {"uniqueItems": True, "type": "array"}]}}}},
            ["properties", "list", "items", "anyOf", 1, "uniqueItems"],
            "true",
        ),
        (
            {"$ref": "#/$defs/Word", "$defs": {"Word": {"type": "string", "format": "word"}}},
            ["$defs", "Word", "format"],
            '"word"',
        ),
        ({"type": "text"}, ["type"], '"text"'),
    ],
)
def test_the_part_of_a_schema_that_is_not_supported_is_named(
    engine: LlamaCppEngine, schema: dict[str, Any], at: list[Any], value: str
) -> None:
    with pytest.raises(RequestError) as rejection:
        held_to(engine, "json", schema)
    assert rejection.value.message_id == "schema_part_not_valid"
    assert rejection.value.parameters == {
        "field": "structured_output",
        "at": json.dumps([False, *at]),
        "value": value,
    }


def test_the_part_of_a_function_that_is_not_supported_is_named(engine: LlamaCppEngine) -> None:
    functions = {"f": {}, "g": {"properties": {"a": {"pattern": "(?=a)b"}}}}
    with pytest.raises(RequestError) as rejection:
        generated(engine, calls={**CALLS, "schema": call_schema(functions)}, max_tokens=1)
    expected = [True, "anyOf", 1, "properties", "arguments", "properties", "a", "pattern"]
    assert rejection.value.parameters["at"] == json.dumps(expected)
