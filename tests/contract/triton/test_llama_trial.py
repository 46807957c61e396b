"""Structured outputs that need too much memory, or crash their compiler, are compiled in a child and rejected."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from bench.trtllm.subject import Reader
from services.inference.triton_backend import trial
from services.inference.triton_backend.contract import Params, Request, StructuredOutput
from services.inference.triton_backend.engines import llamacpp
from services.inference.triton_backend.engines.llama_candidates import Candidates
from services.inference.triton_backend.engines.llamacpp import LlamaCppEngine
from services.inference.triton_backend.params_parser import parse
from services.inference.triton_backend.trial import Trials
from services.worker.triton_kit.request_error import RequestError
from tests.support.waits import block_until

MODULE = "services.inference.triton_backend.engines.llama_trial"


def schema(**fields: Any) -> StructuredOutput:
    return StructuredOutput("json", json.dumps({"type": "array", "items": {"type": "integer"}, **fields}))


BOMBS = {
    "minItems": schema(minItems=1_000_000_000),
    "maxItems": schema(maxItems=1_000_000_000),
    "minItems of 64 bits": schema(minItems=18446744073709551615),
    "multipleOf": StructuredOutput("json", json.dumps({"type": "integer", "multipleOf": 123456789})),
    "a chain of rules": StructuredOutput(
        "grammar", "%llguidance {}\nstart: r0\n" + "".join(f"r{i}: r{i + 1}\n" for i in range(3000)) + 'r3000: "a"'
    ),
    "a chain of terminals": StructuredOutput(
        "grammar", "%llguidance {}\nstart: R0\n" + "".join(f"R{i}: R{i + 1}\n" for i in range(4000)) + 'R4000: "a"'
    ),
    "a regex": StructuredOutput("regex", "(a{100}){100}{100}{100}"),
    "a long repetition": StructuredOutput("regex", "a{1000000000}"),
}
"""Hostile structured outputs. The limits of the worker reject all of them before the trial."""


TRIES = 10


@pytest.fixture(scope="module")
def trials(gguf: Path) -> Iterator[Trials]:
    trials = Trials(MODULE, {"model": str(gguf)})
    trials.wait_ready()
    yield trials
    trials.close()


def rejection_of(trials: Trials, structured_output: StructuredOutput) -> RequestError:
    """Return the error of a trial, which is repeated while the machine is too busy to give it its time."""
    for _ in range(TRIES):
        with pytest.raises(RequestError) as rejection:
            trials.check(structured_output)
        if rejection.value.reason != "OVERLOADED":
            break
    return rejection.value


@pytest.mark.parametrize("what", BOMBS)
def test_a_hostile_structured_output_is_rejected_without_cost_for_this_process(trials: Trials, what: str) -> None:
    before = psutil.Process().memory_info().rss
    error = rejection_of(trials, BOMBS[what])
    assert (error.reason, error.parameters["field"]) == ("INVALID_ARGUMENT", "structured_output")
    assert psutil.Process().memory_info().rss - before < 50 * 2**20
    assert not trials.restarts
    began = time.process_time()
    with pytest.raises(RequestError):
        trials.check(BOMBS[what])
    assert time.process_time() - began < 0.1, "the rejection is remembered"


def test_a_successful_trial_is_remembered(trials: Trials, monkeypatch: pytest.MonkeyPatch) -> None:
    trials.check(StructuredOutput("regex", "(yes|no)"))
    monkeypatch.setattr(trials, "_outcome", None)
    trials.check(StructuredOutput("regex", "(yes|no)"))


def test_a_rejected_structured_output_is_tried_again_later(trials: Trials, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "REJECTED_SECONDS", 0.0)
    for _ in range(2):
        with pytest.raises(RequestError) as rejection:
            trials.check(StructuredOutput("regex", "((("))
        assert rejection.value.message_id == "structured_output_not_valid"


def test_a_slow_trial_does_not_delay_others(trials: Trials) -> None:
    structured_output = StructuredOutput("json", json.dumps({"type": "integer", "multipleOf": 987654321}))
    slow = threading.Thread(target=_check_quietly, args=(trials, structured_output))
    slow.start()
    trials.check(StructuredOutput("regex", "quick[0-9]"))
    assert slow.is_alive(), "the slow one takes two seconds of CPU time"
    slow.join()


def test_a_trial_runs_under_limits(trials: Trials) -> None:
    """The limits are read from outside, while a trial runs."""
    structured_output = StructuredOutput("json", '{"type": "integer", "multipleOf": 777777777}')
    slow = threading.Thread(target=_check_quietly, args=(trials, structured_output))
    slow.start()
    server = psutil.Process(trials.pid)
    block_until(lambda: bool(server.children()))
    (child,) = server.children()
    block_until(lambda: child.rlimit(psutil.RLIMIT_CPU)[0] == 2)
    block_until(lambda: 0 < child.rlimit(psutil.RLIMIT_AS)[0] < 2 * 2**30)
    assert child.nice() > 0
    assert child.rlimit(psutil.RLIMIT_CORE) == (0, 0)
    assert child.rlimit(psutil.RLIMIT_STACK)[0] <= 4 * 2**20
    slow.join()
    block_until(lambda: not server.children())


def _check_quietly(trials: Trials, structured_output: StructuredOutput) -> None:
    with contextlib.suppress(RequestError):
        trials.check(structured_output)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_a_dead_server_is_restarted(trials: Trials, number: signal.Signals) -> None:
    before, pid = trials.restarts, trials.pid
    os.kill(pid, number)
    block_until(lambda: psutil.Process(pid).status() == psutil.STATUS_ZOMBIE if psutil.pid_exists(pid) else True)
    trials.check(StructuredOutput("regex", f"again{before}"))
    assert trials.restarts == before + 1
    assert trials.pid != pid


def test_a_frozen_server_is_replaced(trials: Trials, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "_OUTCOME_SECONDS", 3.0)
    before, pid = trials.restarts, trials.pid
    os.kill(pid, signal.SIGSTOP)
    assert trials.check(StructuredOutput("regex", "[a-z]{7} frozen")) >= 0
    assert trials.restarts == before + 1
    assert not psutil.pid_exists(pid)


@pytest.mark.parametrize(("number", "multiple"), [(signal.SIGSTOP, 555555557), (signal.SIGKILL, 444444443)])
def test_a_trial_that_is_killed_from_outside_is_no_rejection(
    trials: Trials, number: signal.Signals, multiple: int
) -> None:
    """The trial got no CPU time, or the kernel had no memory left."""
    structured_output, found = StructuredOutput("json", json.dumps({"type": "integer", "multipleOf": multiple})), []

    def check() -> None:
        try:
            trials.check(structured_output)
        except RequestError as error:
            found.append(error.reason)

    slow = threading.Thread(target=check)
    slow.start()
    server = psutil.Process(trials.pid)
    block_until(lambda: bool(server.children()))
    # The trial has read the structured output, and its limits are set.
    block_until(lambda: server.children()[0].rlimit(psutil.RLIMIT_CPU)[0] == 2)
    server.children()[0].send_signal(number)
    slow.join()
    assert found == ["OVERLOADED"]

    def is_rejected() -> bool:
        # A busy machine may give the next trial too little CPU time as well.
        check()
        return found[-1] == "INVALID_ARGUMENT"

    block_until(is_rejected, what="the first outcome is not remembered")


def test_a_server_that_hangs_while_it_starts_is_replaced(trials: Trials, monkeypatch: pytest.MonkeyPatch) -> None:
    trials.check(StructuredOutput("regex", "ready"))
    monkeypatch.setattr(trials, "_ready_seconds", 8.0)
    start = trials._start

    def start_and_freeze() -> None:
        start()
        os.kill(trials.pid, signal.SIGSTOP)
        monkeypatch.setattr(trials, "_start", start)

    monkeypatch.setattr(trials, "_start", start_and_freeze)
    psutil.Process(trials.pid).kill()
    block_until(lambda: trials._process.poll() is not None)
    assert trials.check(StructuredOutput("regex", "after a start that hung")) >= 0


def test_trials_end_with_their_server(trials: Trials) -> None:
    structured_output = StructuredOutput("json", '{"type": "integer", "multipleOf": 666666667}')
    slow = threading.Thread(target=_check_quietly, args=(trials, structured_output))
    slow.start()
    server = psutil.Process(trials.pid)
    block_until(lambda: bool(server.children()))
    (child,) = server.children()
    server.kill()
    block_until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)
    slow.join()


def test_trials_leak_no_descriptors_and_processes(trials: Trials) -> None:
    trials.check(StructuredOutput("regex", "first"))
    mine, server = psutil.Process(), psutil.Process(trials.pid)
    before = mine.num_fds(), server.num_fds()
    for number in range(30):
        trials.check(StructuredOutput("regex", f"form{number}"))
        _check_quietly(trials, StructuredOutput("regex", "(" * (number + 1)))
    block_until(lambda: (mine.num_fds(), server.num_fds()) == before)
    assert not server.children()


def test_closing_leaves_no_processes(gguf: Path) -> None:
    before = psutil.Process().num_fds()
    trials = Trials(MODULE, {"model": str(gguf)})
    trials.wait_ready()
    pid = trials.pid
    trials.close()
    assert not psutil.pid_exists(pid)
    assert psutil.Process().num_fds() == before
    with pytest.raises(RequestError, match="is stopping"):
        trials.check(StructuredOutput("regex", "late"))


def test_a_model_that_cannot_be_loaded_is_reported_at_once(tmp_path: Path) -> None:
    trials = Trials(MODULE, {"model": str(tmp_path / "none.gguf")})
    with pytest.raises(RuntimeError, match="cannot start"):
        trials.wait_ready()
    trials.close()


@pytest.fixture(scope="module")
def engine(gguf: Path) -> Iterator[LlamaCppEngine]:
    engine = LlamaCppEngine(model=str(gguf), context_length=512, slots=3)
    yield engine
    engine.close()


def started(engine: LlamaCppEngine, **params: Any) -> Reader:
    parsed = parse(json.dumps({"max_tokens": 30, **params}))
    assert isinstance(parsed, Params)
    reader = Reader()
    engine.submit(Request(parsed, [1, 2, 3]), reader)
    return reader


AMBIGUOUS = "root ::= s\ns ::= s s s | s s | [a-zA-Z ,.!?]"


def test_an_ambiguous_grammar_does_not_delay_other_requests(engine: LlamaCppEngine) -> None:
    readers = [
        started(engine, structured_output={"grammar": AMBIGUOUS}, max_tokens=400, temperature=1.5, seed=seed)
        for seed in range(2)
    ]
    assert started(engine).wait().reason
    for reader in readers:
        with contextlib.suppress(RequestError):
            assert reader.wait().reason in ("stop", "length")


def test_many_hostile_structured_outputs_do_not_delay_other_requests(engine: LlamaCppEngine) -> None:
    bombs = [
        started(
            engine,
            structured_output={"json": {"type": "integer", "multipleOf": 987654321 + number}},
            cache_salt="attacker",
        )
        for number in range(5)
    ]
    assert started(engine, cache_salt="another").wait().reason
    assert started(engine, cache_salt="another", structured_output={"regex": "yes|no"}).wait().reason == "stop"
    for reader in bombs:
        with pytest.raises(RequestError) as rejection:
            reader.wait()
        assert rejection.value.reason in ("INVALID_ARGUMENT", "OVERLOADED")


@pytest.mark.parametrize("grammar", ["root ::= [z-a]+", r"root ::= [^\x00-\U0010ffff]", "root ::= <[1]> <[2]>"])
def test_a_grammar_without_any_text_is_an_invalid_argument(engine: LlamaCppEngine, grammar: str) -> None:
    with pytest.raises(RequestError) as rejection:
        started(engine, structured_output={"grammar": grammar}).wait()
    assert rejection.value.reason == "INVALID_ARGUMENT"


@pytest.mark.parametrize(
    "params", [{"temperature": 1e-40}, {"temperature": 1e-10}, {"top_p": 1e-40}, {"min_p": 1e-40, "temperature": 2.0}]
)
def test_parameters_close_to_zero_choose_a_token(engine: LlamaCppEngine, params: dict[str, float]) -> None:
    assert started(engine, **params).wait().reason in ("stop", "length")


def test_the_engine_reports_the_library_that_compiles_structured_outputs(engine: LlamaCppEngine) -> None:
    assert engine.structured_output_library == "llguidance"
    assert "xllamacpp" in engine.structured_output_library_version


def test_a_grammar_that_cannot_be_completed_ends_with_length(engine: LlamaCppEngine) -> None:
    """Behind `ab`, a text must match both `a` and `b`."""
    reader = started(
        engine, structured_output={"grammar": '%llguidance {}\nstart: "ab" X\nX: /c/ & /d/'}, temperature=0
    )
    try:
        assert reader.wait().reason == "length"
    except RequestError as rejection:
        assert rejection.reason == "INVALID_ARGUMENT"


def test_a_generation_without_an_allowed_token_ends_with_length(
    engine: LlamaCppEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No grammar is known that llguidance accepts and that cannot be completed, so that the test forbids tokens."""
    original, calls = Candidates.allowed, iter(range(1000))
    monkeypatch.setattr(Candidates, "allowed", lambda self: 0 if next(calls) >= 4 else original(self))
    reader = started(engine, structured_output={"grammar": "root ::= [a-z]+"}, max_tokens=9).wait()
    assert reader.reason == "length"
    assert 0 < len(reader.token_ids) < 9


def test_a_slow_step_is_counted_and_logged(
    engine: LlamaCppEngine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    before = engine.load().slow_steps_total
    monkeypatch.setattr(llamacpp, "SLOW_STEP_SECONDS", 0.0)
    assert started(engine, max_tokens=2).wait().reason
    block_until(lambda: engine.load().slow_steps_total > before)
    assert "a step of the engine took" in caplog.text
