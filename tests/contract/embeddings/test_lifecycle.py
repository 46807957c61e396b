"""The start, the health and the end of the embeddings worker."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2
from vilix.embeddings.v1 import embeddings_service_pb2 as pb

from services.runtime.failure import Reason
from tests.contract.embeddings.test_embed import rejection, request
from tests.support.repository import ROOT
from tests.support.triton_servers import EMBEDDING_MODEL as MODEL
from tests.support.triton_servers import Server, serving_embeddings
from tests.support.waits import until
from tests.support.workers import running_embeddings_worker

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "VILIX_MODELS is not set"),
        ({"VILIX_MODELS": "nobody"}, "there is no model 'nobody'"),
        ({"VILIX_MODELS": "qwen3-embedding-0.6b"}, "needs its model directory"),
        ({"VILIX_MODELS": "qwen3-embedding-0.6b=/nowhere"}, "/nowhere/tokenizer.json"),
        ({"VILIX_MODELS": f"{MODEL},{MODEL}"}, "named twice"),
        ({"VILIX_MODELS": MODEL, "VILIX_CL100K_BASE": "/nowhere"}, "/nowhere"),
    ],
)
def test_a_failed_start_is_reported_in_one_line(settings: dict[str, str], message: str) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "services.embeddings"],
        cwd=ROOT,
        env={**os.environ, **settings},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert result.returncode == 2
    assert message in result.stderr
    assert result.stderr.count("\n") == 1


async def test_health_follows_triton(tmp_path: Path) -> None:
    async with serving_embeddings(tmp_path) as server:
        with running_embeddings_worker(tmp_path, triton=server.target) as worker:
            await worker.reaches(SERVING)
            server.kill()
            await worker.reaches(NOT_SERVING)
            async with worker.connected() as stub:
                failure = await rejection(stub, request("سلام"))
                assert failure.reason is Reason.MODEL_UNAVAILABLE
                assert failure.retry_after
                assert not (await stub.ListModels(pb.ListModelsRequest(), timeout=5)).models


async def test_a_model_that_differs_from_its_catalog_entry_is_not_served(triton: Server, tmp_path: Path) -> None:
    entry = (ROOT / f"services/embeddings/models/{MODEL}.yaml").read_text().replace("dimensions: 384", "dimensions: 7")
    (tmp_path / f"{MODEL}.yaml").write_text(entry)
    with running_embeddings_worker(tmp_path, triton=triton.target, catalog_dir=str(tmp_path)) as worker:

        async def is_logged() -> bool:
            return "the engine says dimensions: 384, and the catalog 7" in worker.log.read_text()

        await until(is_logged, seconds=30)
        assert await worker.health() == NOT_SERVING


async def test_a_running_request_completes_after_sigterm(triton: Server, tmp_path: Path) -> None:
    with running_embeddings_worker(tmp_path, triton=triton.target) as worker:
        await worker.reaches(SERVING)
        async with worker.connected() as stub:
            running = asyncio.ensure_future(stub.Embed(request(*["کتاب " * 50] * 40), timeout=60))

            async def runs() -> bool:
                watch = stub.WatchStatus(pb.WatchStatusRequest(), timeout=10)
                state = (await watch.read()).models[0]
                watch.cancel()
                return bool(state.in_flight)

            await until(runs)
            worker.process.send_signal(signal.SIGTERM)

            async def rejects() -> bool:
                return await worker.health() in (None, NOT_SERVING)

            await until(rejects)
            assert (await running).count == 40
        assert await asyncio.to_thread(worker.process.wait, 20) == 0


async def test_a_deadline_ends_a_request(triton: Server, tmp_path: Path) -> None:
    with running_embeddings_worker(tmp_path, triton=triton.target) as worker:
        await worker.reaches(SERVING)
        async with worker.connected() as stub:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.Embed(request(*["کتاب " * 50] * 400), timeout=0.5)
            assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED

            async def is_idle() -> bool:
                watch = stub.WatchStatus(pb.WatchStatusRequest(), timeout=10)
                state = (await watch.read()).models[0]
                watch.cancel()
                return (state.in_flight, state.queued) == (0, 0)

            await until(is_idle)
