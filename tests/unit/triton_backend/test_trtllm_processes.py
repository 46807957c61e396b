"""The processes of TensorRT-LLM, the sizes of each, and what it reports about them, with a stand-in."""

from __future__ import annotations

import os
import sys

import pytest

from services.inference.triton_backend.engines import trtllm_statistics
from tests.support.trtllm_engine import Bench, until

new = pytest.mark.parametrize("version", ["1.3.0rc29"])
FOUR_GPUS = {"tensor_parallel_size": 4, "moe_expert_parallel_size": 4}


@pytest.fixture(autouse=True)
def outside_of_a_job(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("OMPI_", "PMI", "TLLM_", "TRTLLM_", "DO_NOT_TRACK")):
            monkeypatch.delenv(name)


def test_several_gpus_need_an_mpi_job(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RuntimeError, match="needs 4 processes, which only an MPI job can start: start tritonserver"):
        bench.engine(**FOUR_GPUS)
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "1")
    bench.engine(**FOUR_GPUS)
    assert bench.llm.args.tensor_parallel_size == 4
    assert os.environ["OMPI_COMM_WORLD_SIZE"] == "1", "its processes are started from inside the job"
    monkeypatch.setenv("TLLM_SPAWN_PROXY_PROCESS", "1")
    with pytest.raises(RuntimeError, match="without trtllm-llmapi-launch"):
        bench.engine(**FOUR_GPUS)


@new
def test_slots_are_those_of_all_ranks(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "1")
    arguments = {**FOUR_GPUS, "enable_attention_dp": True, "enable_iter_perf_stats": False}
    engine = bench.engine([{"token_ids": [5], "stalls": True}], slots=6, **arguments)
    assert bench.llm.args.max_batch_size == 2
    readers = [bench.ask([1] * 63) for _ in range(7)]
    until(lambda: engine.load().in_flight == 6)
    assert engine.load().queued == 1
    for reader in readers[:6]:
        reader.wait_for_tokens()
    # Each of the four ranks has a cache of 1024 tokens.
    assert engine.load().kv_cache_use == round(6 * 64 / 4096, 4)


@new
def test_without_attention_data_parallelism_sizes_are_those_of_the_engine(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "1")
    bench.engine(slots=6, **FOUR_GPUS)
    assert bench.llm.args.max_batch_size == 6


def test_nothing_is_reported_to_nvidia(bench: Bench) -> None:
    bench.engine()
    assert sys.modules["tensorrt_llm.usage"].SENT == []


def test_the_use_and_the_hits_of_the_cache_are_reported(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(trtllm_statistics, "STATISTICS_SECONDS", 0.01)
    engine = bench.engine([{"token_ids": [5], "stalls": True}])
    assert engine.load().prefix_cache_hit_rate is None
    prompt = list(range(100, 220))
    readers = [bench.ask(prompt) for _ in range(2)]
    for reader in readers:
        reader.wait_for_tokens()
    # 121 tokens are 4 blocks each, of 32; the second prompt finds 3 of its blocks.
    until(lambda: (engine.load().prefix_cache_hit_rate, engine.load().kv_cache_use) == (0.375, 0.25))
    for reader in readers:
        reader.cancelled = True
    until(lambda: engine.load().in_flight == 0)
    assert "not available" not in capsys.readouterr().err


def test_after_a_pause_statistics_are_read_again(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trtllm_statistics, "STATISTICS_SECONDS", 0.01)
    engine = bench.engine()
    prompt = list(range(100, 220))
    for tenant in ("a", "b"):
        bench.ask(prompt, max_tokens=2, cache_salt=tenant).wait()
        until(lambda: bench.llm._iterations._done)
    bench.ask(prompt, max_tokens=2, cache_salt="b").wait()
    until(lambda: engine.load().prefix_cache_hit_rate == 0.25)


@pytest.mark.parametrize(
    ("version", "arguments", "share"),
    [
        ("1.2.1", {}, None),
        ("1.2.1", {"kv_cache_config": {"max_tokens": 2000}}, 0.05),
        ("1.3.0rc29", {"kv_cache_config": {"max_tokens": 2000}}, round(100 / 1024, 4)),
    ],
)
def test_without_statistics_the_use_of_the_cache_is_estimated_if_its_size_is_known(
    bench: Bench, arguments: dict[str, object], share: float | None
) -> None:
    engine = bench.engine([{"token_ids": [5], "stalls": True}], enable_iter_perf_stats=False, **arguments)
    answer = bench.ask([1] * 99)
    answer.wait_for_tokens()
    assert engine.load().kv_cache_use == share
