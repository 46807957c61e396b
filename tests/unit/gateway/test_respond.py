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
from services.gateway.operations.respond import RecallingPrompt, Respond, RespondEndpoint
from services.gateway.operations.response_state import ResponseState
from services.gateway.record import RequestRecord
from services.gateway.stored_responses.store import Budgets, ResponseStore, StoredResponse

TEXT = "a text of the input"
CALLER: Any = SimpleNamespace(key=SimpleNamespace(id="key", tenant="tenant"))


class StoreStandIn:
    """A store that notes the input."""

    def __init__(self) -> None:
        self.lease_ms = 60_000
        self.items: list[Any] = []

    async def create(self, *_: Any, items: Any, **__: Any) -> None:
        self.items = [dict(item) for item in items]

    async def read(self, response_id: str, *_: Any, **__: Any) -> StoredResponse:
        items = [{"type": "message", "role": "user", "content": text} for text in "abc"]
        return StoredResponse(response_id, "completed", {"output": []}, items, False, 0, [])


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


def operation_for(kept: StoreStandIn, **fields: Any) -> Respond | RecallingPrompt:
    parts = SimpleNamespace(
        pool=SimpleNamespace(model=lambda _: pb.Model()),
        image_limits=ImageLimits(),
        image_fetcher=None,
        reserve_output=1,
        keep_alive=1.0,
        background=SimpleNamespace(start=start),
    )
    tiers = SimpleNamespace(store_seconds=lambda _: None)
    budgets, receipts = Budgets(1, 10**6, 10**6), cast(Any, None)
    state = ResponseState(cast(ResponseStore, kept), KeyRing(), cast(Any, tiers), budgets, 10**6, receipts)
    body = {"model": "m", "input": [{"role": "user", "content": TEXT}], **fields}
    operation = RespondEndpoint(cast(InferenceParts, parts), state).read(body, strict=False, tenant="tenant")
    assert isinstance(operation, Respond | RecallingPrompt)
    return operation


@pytest.mark.parametrize("fields", [{"store": False}, {"background": True}])
async def test_nothing_of_an_input_is_kept_while_its_response_is_generated(fields: dict[str, Any]) -> None:
    store = StoreStandIn()
    operation, client = operation_for(store, **fields), exchange()
    assert isinstance(operation, Respond)
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


@pytest.mark.parametrize("dry_run", [False, True])
async def test_errors_name_fields_of_the_request_behind_those_of_what_it_continues(*, dry_run: bool) -> None:
    operation = operation_for(StoreStandIn(), dry_run=dry_run, previous_response_id="resp_1")
    await operation.recall(CALLER, exchange().body)
    names = [operation.field_name(f"messages[{index}]") for index in range(4)]
    assert names == ["previous_response_id"] * 3 + ["input[0]"]
