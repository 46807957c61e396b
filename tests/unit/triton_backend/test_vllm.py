"""The engine vllm with a stand-in for vLLM. `make test-vllm` runs it with the real one."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from services.inference.triton_backend.contract import Request, StructuredOutput
from services.inference.triton_backend.engines import vllm, vllm_processes, vllm_structured_output
from services.worker.triton_kit.request_error import RequestError
from tests.stand_ins import vllm as stand_in
from tests.support.trtllm_engine import Reader, read, until

EOS = 14
Make = Callable[..., vllm.VllmEngine]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    stand_in.install(monkeypatch)
    monkeypatch.setattr(vllm_processes, "prepare", lambda: None)
    monkeypatch.setattr(vllm, "start_trials", lambda *_, **__: None)
    config = {"architectures": ["Qwen3ForCausalLM"], "vocab_size": 1000, "eos_token_id": EOS}
    (tmp_path / "config.json").write_text(json.dumps(config))
    engines: list[vllm.VllmEngine] = []

    def made(**arguments: Any) -> vllm.VllmEngine:
        engines.append(vllm.create({"model": str(tmp_path), "context_length": 256, "slots": 2, **arguments}))
        return engines[-1]

    yield made
    for engine in engines:
        engine.close()
        assert stand_in.AsyncLLM.made.pop().is_shut_down


def ask(engine: vllm.VllmEngine, prompt: list[int], **params: Any) -> Reader:
    reader = Reader()
    engine.submit(Request(read(params), prompt), reader)
    return reader


def llm() -> stand_in.AsyncLLM:
    return stand_in.AsyncLLM.made[-1]


def test_tokens_arrive_with_the_usage(make: Make) -> None:
    engine = make()
    reader = ask(engine, [1, 2, 3]).wait()
    assert (reader.token_ids, reader.reason) == ([10, 11, 12, 13, EOS], "stop")
    assert (reader.usage.prompt_tokens, reader.usage.completion_tokens, reader.usage.cached_tokens) == (3, 5, 4)
    assert [batch.cached_tokens for batch in reader.batches if batch.cached_tokens is not None] == [4]
    assert engine.load().generated_tokens_total == 5


def test_all_parameters_reach_vllm(make: Make) -> None:
    params = {"temperature": 0.5, "top_p": 0.9, "top_k": 7, "min_p": 0.1, "frequency_penalty": 1.0}
    params |= {"presence_penalty": -1.0, "repetition_penalty": 1.5, "min_tokens": 2, "max_tokens": 3}
    ask(make(), [1], **params, seed=-1, stop_token_ids=[20], logit_bias={"5": 3}, cache_salt="s", priority=4).wait()
    request = llm().requests[-1]
    sent = vars(request.parameters)
    assert {name: sent[name] for name in params} == params
    # For vLLM, -1 is no seed, and a smaller priority goes first.
    assert (sent["seed"], request.priority) == (2**63 - 1, -4)
    assert (sent["stop_token_ids"], sent["logit_bias"]) == ([EOS, 20], {5: 3.0})
    assert (sent["detokenize"], sent["output_kind"]) == (False, "delta")
    assert request.prompt == {"type": "token", "prompt_token_ids": [1], "cache_salt": "s"}
    assert request.trace_headers is None


def test_the_callers_span_reaches_vllm(make: Make) -> None:
    headers = {"traceparent": "00-a-b-01", "tracestate": "c=1"}
    ask(make(), [1], max_tokens=1, trace_headers=headers).wait()
    assert llm().requests[-1].trace_headers == headers


def test_end_tokens_end_nothing_if_they_are_ignored(make: Make) -> None:
    reader = ask(make(), [1], ignore_eos=True, max_tokens=7).wait()
    assert (len(reader.token_ids), reader.reason) == (7, "length")


def test_log_probabilities_are_ordered_by_probability(make: Make) -> None:
    reader = ask(make(), [1, 2], logprobs=2, prompt_logprobs=0, max_tokens=2).wait()
    assert reader.logprobs == [-1.0, -1.0]
    assert reader.top == [[(11, -0.5), (10, -1.0)], [(12, -0.5), (11, -1.0)]]
    prompt = reader.batches[0].prompt
    assert prompt is not None
    assert (prompt.token_ids, prompt.logprobs, prompt.top) == ([1, 2], [0.0, -2.0], None)


def test_tokens_wait_for_a_slow_reader_and_are_joined(make: Make) -> None:
    engine = make()
    llm().going_on.clear()
    reader = Reader()
    reader.is_behind = True
    engine.submit(Request(read({"logprobs": 1, "max_tokens": 4}), [1]), reader)
    llm().going_on.set()
    reader.wait()
    (batch,) = reader.batches
    assert batch.token_ids == [10, 11, 12, 13]
    assert len(batch.logprobs or ()) == len(batch.top or ()) == 4


def test_requests_wait_for_a_slot_in_the_order_of_priority(make: Make) -> None:
    engine = make()
    llm().going_on.clear()
    first = [ask(engine, [n]) for n in (1, 2)]
    later = [ask(engine, [n], priority=n) for n in (3, 4)]
    until(lambda: len(llm().requests) == 2)
    load = engine.load()
    assert (load.in_flight, load.queued) == (2, 2)
    llm().going_on.set()
    for reader in (*first, *later):
        assert reader.wait().reason == "stop"
    assert [request.prompt["prompt_token_ids"][0] for request in llm().requests] == [1, 2, 4, 3]


def test_a_full_queue_rejects_requests(make: Make) -> None:
    engine = make(slots=1, max_queued=1)
    llm().going_on.clear()
    ask(engine, [1])
    ask(engine, [1])
    with pytest.raises(RequestError) as rejection:
        ask(engine, [1])
    assert rejection.value.reason == "OVERLOADED"


def test_a_cancelled_request_is_aborted(make: Make) -> None:
    engine = make(slots=1)
    running, waiting = ask(engine, [stand_in.SILENT]), ask(engine, [1])
    until(lambda: bool(llm().requests))
    waiting.cancelled = True
    engine.wake()
    assert waiting.wait().reason == "cancelled"
    running.cancelled = True
    assert running.wait().reason == "cancelled"
    until(lambda: len(llm().aborted) == 1)
    until(lambda: engine.load().in_flight == 0)
    assert engine.load().cancelled_total == 2


def test_a_request_that_is_cancelled_before_it_starts_leaves_its_slot(make: Make) -> None:
    engine = make(slots=1)
    may_go_on = threading.Event()
    # What follows happens at once in the loop: the start of the request, and the look for cancelled ones.
    engine._loop.call(may_go_on.wait)
    engine.wake()
    reader = Reader()
    reader.cancelled = True
    engine.submit(Request(read({}), [1]), reader)
    may_go_on.set()
    assert reader.wait().reason == "cancelled"
    assert ask(engine, [1]).wait().reason == "stop"


@pytest.mark.parametrize(
    ("token_id", "reason", "message"),
    [
        (stand_in.REJECTED, "INVALID_ARGUMENT", "this request is not valid"),
        (stand_in.MISTAKEN, "INVALID_ARGUMENT", "a value is wrong"),
        (stand_in.FAILING, "ENGINE_FAILED", "out of luck"),
        (stand_in.EARLY, "ENGINE_FAILED", "vLLM ended the answer early: abort"),
    ],
)
def test_the_error_of_one_request_ends_only_it(make: Make, token_id: int, reason: str, message: str) -> None:
    engine = make()
    other = ask(engine, [1])
    error = ask(engine, [token_id]).wait().error
    assert error is not None
    assert (error.reason, message in str(error)) == (reason, True)
    assert other.wait().reason == ask(engine, [1]).wait().reason == "stop"


def test_a_dead_engine_fails_all_requests_and_is_not_ready(make: Make) -> None:
    engine = make(slots=2)
    silent, waiting = ask(engine, [stand_in.SILENT]), ask(engine, [stand_in.FATAL])
    for reader in (silent, waiting):
        error = reader.wait().error
        assert error is not None
        assert error.reason == "ENGINE_FAILED"
    for use in (engine.load, lambda: ask(engine, [1])):
        with pytest.raises(RequestError, match="it must be restarted"):
            use()


def test_an_engine_that_dies_idle_is_detected(make: Make) -> None:
    engine = make()
    llm().is_dead = True

    def is_failed() -> bool:
        try:
            engine.load()
        except RequestError:
            return True
        return False

    until(is_failed)


def test_an_engine_without_steps_fails(make: Make) -> None:
    engine = make(stall_seconds=0.1)
    error = ask(engine, [stand_in.SILENT]).wait().error
    assert error is not None
    assert "no step for" in str(error)
    with pytest.raises(RequestError):
        engine.load()


def test_steps_show_that_a_prompt_is_being_read(make: Make) -> None:
    engine = make()
    reader = ask(engine, [stand_in.SILENT])
    until(lambda: bool(llm().requests))

    def is_noted() -> bool:
        llm().step(use=0.5)
        return reader.progress > 0

    until(is_noted)
    assert engine.load().kv_cache_use == 0.5
    age = engine.load().step_age_s
    assert age is not None


def test_the_hit_rate_is_that_of_all_steps(make: Make) -> None:
    engine = make()
    assert engine.load().prefix_cache_hit_rate is None
    llm().step(asked=100)
    llm().step(asked=100, found=50)
    assert engine.load().prefix_cache_hit_rate == 0.25
    assert engine.load().kv_cache_use == 0, "it is idle"


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"tensor_paralel_size": 2}, "vLLM 0.32.0 has no argument 'tensor_paralel_size'"),
        ({"skip_tokenizer_init": True}, "skip_tokenizer_init is the engine's own"),
        ({"requires": ">=0.33"}, "this model needs vLLM 0.33 or newer, and 0.32.0 is installed"),
        ({"structured_outputs_config": {"backend": "auto"}}, "it must be guidance or xgrammar"),
        ({"structured_outputs_config": {"reasoning_parser": "qwen3"}}, "leave it out"),
        ({"load_format": "broken"}, "could not load"),
    ],
)
def test_invalid_arguments_are_rejected_in_one_line(make: Make, arguments: dict[str, Any], problem: str) -> None:
    with pytest.raises((ValueError, RuntimeError)) as rejection:
        make(**arguments)
    assert problem in str(rejection.value)
    assert "\n" not in str(rejection.value)


def test_the_models_arguments_reach_vllm(make: Make) -> None:
    engine = make(slots=5, data_parallel_size=2, speculative_config={"method": "ngram"})
    config = llm().config
    assert (config.max_model_len, config.max_num_seqs, config.scheduling_policy) == (256, 3, "priority")
    assert config.structured_outputs_config == {"backend": "guidance", "disable_any_whitespace": True}
    assert engine.supported_parameters.isdisjoint({"min_p", "logit_bias", "images", "structured_output"})


def test_a_missing_package_is_reported_with_a_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vllm_processes, "prepare", lambda: None)
    (tmp_path / "config.json").write_text('{"architectures": ["A"], "vocab_size": 9}')
    with pytest.raises(RuntimeError, match="vllm cannot be imported"):
        vllm.create({"model": str(tmp_path), "context_length": 256})


def test_vllm_reports_nothing_and_starts_python(monkeypatch: pytest.MonkeyPatch) -> None:
    environment: dict[str, str] = {"HF_HUB_OFFLINE": "0"}
    started: list[str] = []
    monkeypatch.setattr(os, "environ", environment)
    monkeypatch.setattr(vllm_processes.multiprocessing, "set_executable", started.append)
    vllm_processes.prepare()
    assert environment["VLLM_NO_USAGE_STATS"] == environment["DO_NOT_TRACK"] == "1"
    assert environment["HF_HUB_OFFLINE"] == "0", "an operator may allow it"
    assert Path(started[0]).name.startswith("python")


@pytest.mark.parametrize(
    ("output", "backend", "expected"),
    [
        (StructuredOutput("regex", "a"), "guidance", "a"),
        (StructuredOutput("grammar", 'root ::= "a"'), "xgrammar", 'root ::= "a"'),
        (StructuredOutput("grammar", "%llguidance {}\nstart: x"), "guidance", "%llguidance {}\nstart: x"),
    ],
)
def test_a_structured_output_stays_as_its_library_takes_it(
    output: StructuredOutput, backend: str, expected: str
) -> None:
    assert vllm_structured_output.translated(output, backend).text == expected


@pytest.mark.parametrize("kind", ["regex", "grammar", "structural_tag"])
def test_an_empty_structured_output_is_rejected(kind: str) -> None:
    with pytest.raises(RequestError, match="is empty"):
        vllm_structured_output.translated(StructuredOutput(kind, " "), "xgrammar")


def test_a_gbnf_is_translated_for_llguidance() -> None:
    translated = vllm_structured_output.translated(StructuredOutput("grammar", 'root ::= "a"'), "guidance")
    assert translated.text.startswith("%llguidance")
    with pytest.raises(RequestError) as rejection:
        vllm_structured_output.translated(StructuredOutput("grammar", "root ::= other"), "guidance")
    assert rejection.value.parameters["field"] == "structured_output"
