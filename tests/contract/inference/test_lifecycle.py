"""The start, the health and the end of a worker, as real processes."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from vilix.inference.v1 import inference_service_pb2 as pb

from services.inference.servicer import SERVICE
from tests.contract.inference.conftest import MODEL, REPLAY, ask
from tests.support.repository import ROOT
from tests.support.triton_servers import Server, serving
from tests.support.waits import until
from tests.support.workers import Worker, running_inference_worker

SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


def run(**settings: str) -> subprocess.CompletedProcess[str]:
    """Start a worker that ends by itself."""
    environment = {f"VILIX_{name.upper()}": value for name, value in settings.items()}
    return subprocess.run(
        [sys.executable, "-m", "services.inference"],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


async def rest(call: Any) -> list[Any]:
    """Return the remaining events of a stream."""
    responses = []
    while (response := await call.read()) is not grpc.aio.EOF:
        responses.append(response)
    return responses


async def drains(worker: Worker) -> bool:
    return "draining" in worker.log.read_text()


@pytest.mark.parametrize(
    ("models", "problem"),
    [
        ("smollm2-135m", "needs its model directory: VILIX_MODELS=smollm2-135m=DIRECTORY"),
        ("smollm2-135m=a,smollm2-135m=b", "'smollm2-135m' is named twice"),
        ("smollm2-135m=/nowhere", "/nowhere/tokenizer.json does not exist"),
        ("gpt-7=/nowhere", "no model 'gpt-7' in the catalog; there are"),
    ],
)
def test_an_invalid_setting_is_reported_in_one_line_with_exit_status_2(models: str, problem: str) -> None:
    result = run(models=models)
    assert result.returncode == 2
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ")
    assert problem in line


def test_a_port_in_use_is_reported_in_one_line_with_exit_status_2(model_directory: Path, triton: Server) -> None:
    result = run(models=f"{MODEL}={model_directory}", listen=triton.target)
    assert result.returncode == 2
    assert [line for line in result.stderr.splitlines() if line.startswith("error: ")] == [
        line for line in result.stderr.splitlines() if f"cannot listen on {triton.target}" in line
    ]


def test_help_lists_every_setting() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "services.inference", "--help"],
        cwd=ROOT, capture_output=True, text=True, timeout=30, check=True,
    )  # fmt: skip
    for name in ("LISTEN", "TRITON", "MODELS", "CATALOG_DIR", "DRAIN_SECONDS", "MAX_CHOICES"):
        assert f"VILIX_{name}" in result.stdout


async def test_health_follows_triton(
    tmp_path: Path, settings: dict[str, str], recordings: Path, model_directory: Path
) -> None:
    engines = {REPLAY: ("replay", {"recordings": str(recordings)})}
    only_replay = {**settings, "models": f"{REPLAY}={model_directory}"}
    async with serving(tmp_path / "triton", engines) as (triton, _):
        with running_inference_worker(tmp_path, triton=triton.target, **only_replay) as worker:
            await worker.reaches(SERVING)
            assert await worker.health("") == SERVING
            assert await worker.health("no.such.Service") is None
            triton.kill()
            await worker.reaches(NOT_SERVING)
            assert await worker.health("") == NOT_SERVING


async def test_a_watcher_that_leaves_does_not_stop_updates_to_others(
    tmp_path: Path, triton: Server, settings: dict[str, str]
) -> None:
    with running_inference_worker(tmp_path, triton=triton.target, **settings) as worker:
        await worker.reaches(SERVING)
        async with grpc.aio.insecure_channel(worker.target) as channel:
            health: Any = health_pb2_grpc.HealthStub(channel)
            watches = [health.Watch(health_pb2.HealthCheckRequest(service=SERVICE)) for _ in range(2)]
            for watch in watches:
                assert (await watch.read()).status == SERVING
            watches[0].cancel()
            worker.process.terminate()
            assert (await asyncio.wait_for(watches[1].read(), 10)).status == NOT_SERVING
            assert await asyncio.wait_for(watches[1].read(), 10) is grpc.aio.EOF
        assert await asyncio.to_thread(worker.process.wait, 10) == 0


async def test_after_sigterm_a_running_call_completes_and_the_exit_status_is_0(
    tmp_path: Path, triton: Server, settings: dict[str, str]
) -> None:
    with running_inference_worker(tmp_path, triton=triton.target, **settings) as worker:
        await worker.reaches(SERVING)
        async with worker.connected() as stub, worker.connected() as watcher, worker.connected() as newcomer:
            watch = watcher.WatchStatus(pb.WatchStatusRequest())
            assert not (await watch.read()).draining
            await newcomer.ListModels(pb.ListModelsRequest())
            call = stub.Generate(ask(prompt_token_ids=[7, 7]))
            events = list((await call.read()).events)
            worker.process.terminate()
            reports = await rest(watch)
            assert reports[-1].draining
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await newcomer.Generate(ask()).read()
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
            events += [event for response in await rest(call) for event in response.events]
        assert events[-1].usage.completion_tokens == 200
        assert await asyncio.to_thread(worker.process.wait, 10) == 0


@pytest.mark.parametrize(("drain_seconds", "signals"), [("0.3", 1), ("60", 2)])
async def test_a_drain_ends_at_its_timeout_or_at_a_second_signal(
    tmp_path: Path, triton: Server, settings: dict[str, str], drain_seconds: str, signals: int
) -> None:
    with running_inference_worker(tmp_path, triton=triton.target, drain_seconds=drain_seconds, **settings) as worker:
        await worker.reaches(SERVING)
        async with worker.connected() as stub:
            call = stub.Generate(ask(prompt_token_ids=[7, 7], sampling=pb.SamplingParams(ignore_eos=True)))
            await call.read()
            for _ in range(signals):
                worker.process.send_signal(signal.SIGTERM)
                # Two signals at the same time would count as one.
                await until(lambda: drains(worker))
            with pytest.raises(grpc.aio.AioRpcError):
                await rest(call)
        assert await asyncio.to_thread(worker.process.wait, 10) == 0
