"""The engine llamacpp compiles a structured output once, and every request starts at its beginning."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from bench.trtllm.subject import Reader
from services.inference.request.structured_output.call_schema import call_schema
from services.inference.triton_backend.contract import Params, Request, StructuredOutput
from services.inference.triton_backend.engines import llama_compilations, llama_structured_output
from services.inference.triton_backend.engines.llama_structured_output import StructuredOutputs
from services.inference.triton_backend.engines.llamacpp import LlamaCppEngine
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
    params = parse(json.dumps({"structured_output": {kind: form}, "max_tokens": 60, "temperature": 1.0}))
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
