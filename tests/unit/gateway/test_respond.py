"""The operation of a request for a response: what it keeps of the request while the response is generated."""

from __future__ import annotations

import gc
from collections.abc import Coroutine
from types import FunctionType, ModuleType, SimpleNamespace
from typing import Any, cast

import pytest
from vilix.inference.v1 import inference_service_pb2 as pb

from services.gateway.edge.exchange import Exchange
from services.gateway.images.limits import ImageLimits
from services.gateway.key_ring import KeyRing
from services.gateway.operations.inference_parts import InferenceParts
from services.gateway.operations.respond import Respond, RespondEndpoint
from services.gateway.operations.response_state import ResponseState
from services.gateway.record import RequestRecord
from services.gateway.stored_responses.store import Budgets, ResponseStore

TEXT = "a text of the input"
CALLER: Any = SimpleNamespace(key=SimpleNamespace(id="key", tenant="tenant"))


class StoreStandIn:
    """A store that notes the input."""

    def __init__(self) -> None:
        self.lease_ms = 60_000
        self.items: list[Any] = []

    async def create(self, *_: Any, items: Any, **__: Any) -> None:
        self.items = [dict(item) for item in items]


class Open:
    """A gate that every request passes."""

    async def check(self) -> None:
        pass


def start(work: Coroutine[Any, Any, None]) -> None:
    work.close()


def keeps_input(root: object) -> bool:
    """Return whether the input can be reached from an object, without what is the same for all requests."""
    seen, waiting = set[int](), [root]
    while waiting:
        value = waiting.pop()
        if value == TEXT:
            return True
        if id(value) not in seen and not isinstance(value, type | ModuleType | FunctionType | StoreStandIn):
            seen.add(id(value))
            waiting += gc.get_referents(value)
    return False


async def send(_: Any) -> None:
    pass


async def receive() -> Any:
    return {"type": "http.disconnect"}


def exchange() -> Exchange:
    record = RequestRecord("req", "POST", route="/responses")
    return Exchange({"type": "http", "headers": [], "state": {"record": record}}, receive, send)


def operation_for(kept: StoreStandIn, **fields: Any) -> Respond:
    parts = SimpleNamespace(
        pool=SimpleNamespace(model=lambda _: pb.Model()),
        image_limits=ImageLimits(),
        reserve_output=1,
        keep_alive=1.0,
        background=SimpleNamespace(start=start),
    )
    tiers = SimpleNamespace(store_seconds=lambda _: None)
    state = ResponseState(cast(ResponseStore, kept), KeyRing(), cast(Any, tiers), Budgets(1, 10**6, 10**6), 10**6)
    body = {"model": "m", "input": [{"role": "user", "content": TEXT}], **fields}
    return cast(Respond, RespondEndpoint(cast(InferenceParts, parts), state).read(body, strict=False, tenant="tenant"))


@pytest.mark.parametrize("fields", [{"store": False}, {"background": True}])
async def test_nothing_of_an_input_is_kept_while_its_response_is_generated(fields: dict[str, Any]) -> None:
    store = StoreStandIn()
    operation, client = operation_for(store, **fields), exchange()
    await operation.recall(CALLER, client.body)
    assert keeps_input(operation)
    await operation.detach(client, CALLER, Open(), cast(Any, None))
    reply = operation.reply(client)
    # As if the worker had the request.
    operation._prepared = None
    assert bool(store.items) == ("background" in fields)
    assert not keeps_input(operation)
    assert not keeps_input(reply)
    if operation._log is not None:
        await operation._log.stop()
