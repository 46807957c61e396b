"""Routing policies, and when a pool asks the policy that it was given."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from types import SimpleNamespace
from typing import Any

import pytest
from vilix.inference.v1 import inference_service_pb2 as pb

from services.gateway.dialects.dialect import GenerateCall, ReadOptions
from services.gateway.images.image_fetch import ImageFetcher
from services.gateway.images.limits import ImageLimits
from services.gateway.operations.prepared_call import prepare
from services.gateway.routing.failover import with_failover
from services.gateway.routing.inference_client import InferencePool, Timeouts, inference_service
from services.gateway.routing.policy import Policy, W, least_load
from services.gateway.routing.pool import WorkerPool
from services.gateway.routing.worker import Worker
from services.gateway.routing.worker_connection import Connections
from services.runtime.failure import Failure, Reason
from services.runtime.messages.message import Message
from services.stack.ports import free_ports
from tests.support.scripted_worker import MODEL, scripted_worker
from tests.support.waits import until


def loaded(*in_flight: int) -> list[Any]:
    """Workers with so many requests each."""
    return [SimpleNamespace(in_flight=number) for number in in_flight]


def test_least_load_chooses_the_worker_with_the_fewest_requests() -> None:
    workers = loaded(3, 1, 2)
    assert least_load(workers, pb.GenerateRequest()) is workers[1]


def test_least_load_chooses_each_of_several_workers_with_equal_load() -> None:
    workers = loaded(1, 0, 0)
    chosen = {id(least_load(workers, pb.GenerateRequest())) for _ in range(100)}
    assert chosen == {id(workers[1]), id(workers[2])}


class ByTenant:
    """Chooses by the tenant of a request, and notes what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, list[str]]] = []

    def __call__(self, candidates: Sequence[W], request: pb.GenerateRequest) -> W:
        ordered = sorted(candidates, key=lambda worker: worker.address)
        self.asked.append((request.tenant, [worker.address for worker in ordered]))
        return ordered[len(request.tenant) % len(ordered)]


class Stack:
    """Two workers, and a pool with a policy of this test's own."""

    def __init__(self, addresses: list[str], policy: ByTenant) -> None:
        typed: Policy[pb.GenerateRequest] = policy
        self.addresses = sorted(addresses)
        self.policy = policy
        self.pool: InferencePool = WorkerPool(
            inference_service(Timeouts(idle_seconds=5, stream_seconds=60)),
            addresses,
            endpoint="/chat/completions",
            expected=[],
            resolve_seconds=60,
            connections=Connections(None, server_name=""),
            policy=typed,
        )

    def candidates(self) -> list[str]:
        """Return the addresses of the workers that serve the model."""
        if not self.pool.any_ready():
            return []
        self.pool.choose(pb.GenerateRequest(model=MODEL))
        return self.policy.asked.pop()[1]


@pytest.fixture
async def stack() -> AsyncIterator[Stack]:
    async with AsyncExitStack() as exits:
        workers = [await exits.enter_async_context(scripted_worker(port)) for port in free_ports(2)]
        stack = Stack([worker.address for worker in workers], ByTenant())
        exits.push_async_callback(stack.pool.close)
        await stack.pool.open()
        await until(lambda: stack.candidates() == stack.addresses)
        yield stack


async def test_a_policy_chooses_by_the_request(stack: Stack) -> None:
    first = stack.pool.choose(pb.GenerateRequest(model=MODEL, tenant="ab"))
    second = stack.pool.choose(pb.GenerateRequest(model=MODEL, tenant="abc"))
    assert [first.address, second.address] == stack.addresses
    assert stack.policy.asked == [("ab", stack.addresses), ("abc", stack.addresses)]


async def test_failover_asks_the_policy_again_without_the_worker_that_failed(stack: Stack) -> None:
    async def attempt(worker: Worker[Any, Any]) -> str:
        if worker.address == stack.addresses[0]:
            raise Failure(Reason.DRAINING, Message("worker_lost"))
        return worker.address

    result = await with_failover(stack.pool, pb.GenerateRequest(model=MODEL, tenant="ab"), attempt)
    assert result == stack.addresses[1]
    assert stack.policy.asked == [("ab", stack.addresses), ("ab", stack.addresses[1:])]


async def test_a_policy_sees_which_requests_belong_together() -> None:
    class Dialect:
        def read(self, body: Any, options: ReadOptions) -> GenerateCall:
            return GenerateCall(generate=pb.GenerateRequest(model=MODEL), affinity_key=body)

    async def routed(name: str, tenant: str) -> str:
        dialect: Any = Dialect()
        prepared = prepare(dialect, name, ImageLimits(), strict=False, tenant=tenant)
        await prepared.complete(ImageFetcher(seconds=1), tenant=tenant)
        return str(prepared.call.generate.affinity_key)

    asked = [("session", "a"), ("session", "a"), ("session", "b"), ("", "a")]
    keys = [await routed(name, tenant) for name, tenant in asked]
    assert keys[0] == keys[1]
    assert keys[0] != keys[2]
    assert keys[3] == ""
    assert "session" not in keys[0]
