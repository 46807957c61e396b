"""How the engine llamacpp reads prompts: beside other requests, with progress, and only once."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from services.inference.triton_backend.contract import Params, Request
from services.inference.triton_backend.engines import llama_steps
from services.inference.triton_backend.engines.llamacpp import LlamaCppEngine
from tests.support.trtllm_engine import Reader

LONG = list(range(400, 560))


@pytest.fixture(scope="module")
def engine(gguf: Path) -> Iterator[LlamaCppEngine]:
    engine = LlamaCppEngine(model=str(gguf), context_length=512, slots=2)
    yield engine
    engine.close()


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the engine read prompts in many parts, however fast the machine is."""
    monkeypatch.setattr(llama_steps, "PREFILL_SECONDS", 0)
    monkeypatch.setattr(llama_steps, "PREFILL_SECONDS_ALONE", 0)
    monkeypatch.setattr(llama_steps, "PREFILL_LEAST_ALONE", llama_steps.PREFILL_LEAST)


def started(engine: LlamaCppEngine, prompt: list[int], *, max_tokens: int, **params: Any) -> Reader:
    reader = Reader()
    engine.submit(Request(Params(max_tokens=max_tokens, ignore_eos=True, **params), prompt), reader)
    return reader


@pytest.mark.usefixtures("small_parts")
def test_other_requests_get_tokens_while_a_long_prompt_is_read(engine: LlamaCppEngine) -> None:
    stream = started(engine, [1, 2, 3], max_tokens=500)
    stream.wait_for_tokens()
    long = started(engine, LONG, max_tokens=1)
    before = len(stream.batches)
    long.wait()
    assert len(stream.batches) - before >= 3
    assert long.progress >= 3
    stream.cancelled = True
    stream.wait()


@pytest.mark.usefixtures("small_parts")
def test_a_request_behind_a_long_prompt_is_in_progress_too(engine: LlamaCppEngine) -> None:
    first = started(engine, LONG, max_tokens=1, seed=1)
    second = started(engine, LONG, max_tokens=1, seed=1)
    first.wait()
    assert second.progress > 0
    second.wait()


@pytest.mark.usefixtures("small_parts")
def test_a_long_prompt_is_cancelled_before_it_is_read(engine: LlamaCppEngine) -> None:
    reader = started(engine, LONG, max_tokens=1, seed=1)
    deadline = time.monotonic() + 20
    while not reader.progress:
        assert time.monotonic() < deadline
        time.sleep(0.001)
    reader.cancelled = True
    reader.wait()
    assert (reader.reason, reader.token_ids) == ("cancelled", [])


@pytest.mark.usefixtures("small_parts")
def test_a_copied_prefix_gives_the_same_result_as_a_prefix_that_was_read(engine: LlamaCppEngine) -> None:
    """The last tokens are read alone both times, so that even the last digits agree."""
    prefix, question = LONG[:96], [11, 12, 13]
    own = {"temperature": 0, "logprobs": 5, "cache_salt": "own"}
    other = started(engine, [*prefix, *range(1000, 1120)], max_tokens=1, **own).wait()
    copied = started(engine, [*prefix, *question], max_tokens=4, **own).wait()
    started(engine, prefix, max_tokens=1, temperature=0, cache_salt="fresh").wait()
    read = started(engine, [*prefix, *question], max_tokens=4, **{**own, "cache_salt": "fresh"}).wait()
    assert other.usage.cached_tokens == 0
    assert copied.usage.cached_tokens == read.usage.cached_tokens == len(prefix)
    assert copied.token_ids == read.token_ids
    assert copied.logprobs == pytest.approx(read.logprobs, abs=1e-3)
