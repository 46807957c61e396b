"""The service reports the capabilities, status, metrics and health of its model."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest
from google.protobuf import duration_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from prometheus_client import REGISTRY
from vilix.inference.v1 import inference_service_pb2 as pb

from services.inference.model.engine_status import EngineStatus
from services.inference.model.served_model import ServedModel
from services.inference.servicer import SERVICE
from services.runtime.failure import Failure, Reason, failure_of
from services.runtime.messages.message import Message
from services.worker.engine_poll import StalledError
from services.worker.triton_failures import DeadModelError
from tests.support.waits import until
from tests.unit.inference.running_worker import Worker
from tests.unit.inference.scripted import MODEL, ScriptedTriton


async def test_the_model_reports_its_capabilities(worker: Worker) -> None:
    (listed,) = (await worker.stub.ListModels(pb.ListModelsRequest())).models
    assert listed == (await worker.stub.GetModel(pb.GetModelRequest(model=MODEL))).model
    assert (listed.id, listed.context_length, listed.engine.slots) == (MODEL, 256, 4)
    assert {"sampling.top_k", "sampling.stop", "logprobs", "tenant"} <= set(listed.supported_parameters)
    assert not listed.capabilities.tools
    assert not listed.capabilities.reasoning
    assert listed.capabilities.chat
    assert set(listed.descriptions) == {"en", "fa"}
    assert listed.sampling_defaults.top_p == pytest.approx(0.9)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await worker.stub.GetModel(pb.GetModelRequest(model="gpt-7"))
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_the_status_is_the_one_that_the_engine_reports(worker: Worker) -> None:
    call = worker.stub.WatchStatus(pb.WatchStatusRequest(interval=duration_pb2.Duration(nanos=100_000_000)))
    await until(lambda: worker.triton.described > 0)
    reports = [await asyncio.wait_for(call.read(), 5) for _ in range(3)]
    call.cancel()
    state = reports[-1].models[0]
    assert (state.model, state.ready, state.in_flight, state.queued, state.slots) == (MODEL, True, 3, 2, 4)
    assert (state.cancelled_total, state.generated_tokens_total) == (11, 1234)
    assert state.last_token_age.ToMilliseconds() == 1500


async def test_what_the_engine_knows_about_its_caches_is_reported(worker: Worker) -> None:
    def reported() -> list[float | None]:
        names = ("vilix_engine_kv_cache_used_ratio", "vilix_engine_prefix_cache_hit_ratio")
        return [REGISTRY.get_sample_value(name, {"model": MODEL}) for name in names]

    await until(lambda: reported() == [0.5, 0.25])
    worker.triton.kv_cache_use = worker.triton.prefix_cache_hit_rate = None
    await until(lambda: reported() == [None, None])
    assert worker.model.description is not None


@pytest.mark.parametrize(
    ("trouble", "cause"),
    [
        (DeadModelError(MODEL), "died"),
        (StalledError(30), "stalled"),
        (Failure(Reason.TIMEOUT, Message.verbatim("late")), "silent"),
        (Failure(Reason.MODEL_UNAVAILABLE, Message.verbatim("away")), "away"),
        (Failure(Reason.ENGINE_FAILED, Message.verbatim("broken")), "failed"),
    ],
)
async def test_each_failure_of_an_engine_is_counted_once_by_its_cause(
    worker: Worker, trouble: Failure, cause: str
) -> None:
    def counts() -> tuple[float, float]:
        failures = REGISTRY.get_sample_value("vilix_engine_failures_total", {"model": MODEL, "cause": cause})
        starts = REGISTRY.get_sample_value("vilix_engine_starts_total", {"model": MODEL})
        return failures or 0.0, starts or 0.0

    await until(lambda: worker.triton.described > 1)
    failures, starts = counts()
    worker.triton.trouble, described = trouble, worker.triton.described
    await until(lambda: worker.triton.described > described + 2)
    assert counts() == (failures + 1, starts)
    # The engine's own totals do not fall meanwhile.
    assert REGISTRY.get_sample_value("vilix_engine_cancelled_requests_total", {"model": MODEL}) == 11
    assert REGISTRY.get_sample_value("vilix_engine_generated_tokens_total", {"model": MODEL}) == 1234
    worker.triton.trouble = None
    await until(lambda: counts() == (failures + 1, starts + 1))


async def test_defaults_that_the_engine_lacks_are_logged(model: ServedModel, caplog: pytest.LogCaptureFixture) -> None:
    triton = ScriptedTriton()
    model.description = None
    triton.supported = triton.supported - {"top_p"}
    # The client is a stand-in.
    status = EngineStatus({MODEL: triton}, {MODEL: model}, interval=0.01, stall_seconds=20)  # type: ignore[arg-type]
    task = asyncio.create_task(status.run(lambda _: None))
    await until(lambda: triton.described > 2)
    task.cancel()
    assert caplog.text.count("does not support its defaults: top_p") == 1


@pytest.mark.parametrize("seconds", [0.05, 4000])
async def test_an_interval_out_of_range_is_rejected(worker: Worker, seconds: float) -> None:
    interval = duration_pb2.Duration()
    interval.FromMilliseconds(int(seconds * 1000))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await worker.stub.WatchStatus(pb.WatchStatusRequest(interval=interval)).read()
    error = failure_of(caught.value)
    assert error is not None
    assert error.message.field == "interval"


async def test_all_watchers_share_one_poll(model: ServedModel) -> None:
    triton = ScriptedTriton()
    # The client is a stand-in.
    status = EngineStatus({MODEL: triton}, {MODEL: model}, interval=60, stall_seconds=20)  # type: ignore[arg-type]
    ready: list[bool] = []
    naps: list[float] = []

    async def nap(seconds: float) -> None:
        naps.append(seconds)
        if len(naps) == 4:
            raise asyncio.CancelledError

    with pytest.MonkeyPatch.context() as patch, status.watched(0.3), status.watched(0.1), status.watched(0.2):
        patch.setattr("services.worker.engine_poll.asyncio.sleep", nap)
        with pytest.raises(asyncio.CancelledError):
            await status.run(ready.append)
    assert naps == [0.1] * 4
    assert triton.described == 4
    assert ready == [True]


async def test_each_model_has_its_own_health(worker: Worker) -> None:
    async with grpc.aio.insecure_channel(worker.target) as channel:
        health: Any = health_pb2_grpc.HealthStub(channel)

        async def status(service: str) -> int:
            return int((await health.Check(health_pb2.HealthCheckRequest(service=service))).status)

        async def sets_reasoning(wanted: int) -> bool:
            return await status(name) == wanted

        serving, not_serving = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
        name = f"{SERVICE}/{MODEL}"
        await until(lambda: sets_reasoning(serving), what="the model is served")
        worker.triton.trouble = DeadModelError(MODEL)
        await until(lambda: sets_reasoning(not_serving), what="the model is away")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await status(f"{SERVICE}/another")
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
