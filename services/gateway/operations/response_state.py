"""The state of the Responses API: what a gateway keeps of responses, for whom, and for how long."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any

import orjson

from services.gateway.dialects.openai_responses.call import ResponsesCall
from services.gateway.dialects.openai_responses.response import error_object
from services.gateway.disconnect import ClientGoneError
from services.gateway.edge.access import publish
from services.gateway.edge.exchange import Exchange
from services.gateway.errors import ApiError, bad_request, restarting_if_cancelled, server_error, unavailable
from services.gateway.key_ring import KeyRing
from services.gateway.limit_status import NO_LIMITS, RateLimits
from services.gateway.stored_responses.lost_response import end_lost
from services.gateway.stored_responses.store import Budgets, ResponseStore, StoreAwayError, StoredResponse
from services.gateway.tenancy.key import Key
from services.gateway.tenancy.receipts import Receipts
from services.gateway.tenancy.tiers import Tiers
from services.gateway.wiring import Gateway
from services.runtime.messages.message import Message


@dataclass(frozen=True)
class ResponseState:
    """The parts of a gateway that keep responses."""

    store: ResponseStore | None
    key_ring: KeyRing
    tiers: Tiers
    defaults: Budgets
    most_recalled_bytes: int
    """The most bytes of stored JSON that one request may refer to."""
    receipts: Receipts
    no_limits: RateLimits = NO_LIMITS

    def budgets(self, key: Key) -> Budgets:
        """Return how long and how much is stored for a key."""
        seconds = self.tiers.store_seconds(key)
        return self.defaults if seconds is None else replace(self.defaults, seconds=seconds)

    def decide(self, call: ResponsesCall, key: Key) -> ResponsesCall:
        """Return the call with the decision whether its response is stored. Raises ApiError (400, 503)."""
        can_store = self.store is not None and self.budgets(key).seconds > 0
        if call.store is False:
            return call
        if can_store:
            return replace(call, store=True, store_is_explicit=bool(call.store) or call.background)
        if call.background:
            raise bad_request(Message("background_not_stored", field="background"), code="unsupported_parameter")
        ignored = [*call.ignored, "store"] if call.store else call.ignored
        return replace(call, store=False, ignored=ignored)

    def dump(self, document: dict[str, Any]) -> bytes:
        """Return a response object as JSON."""
        return orjson.dumps(document)

    def unavailable(self) -> ApiError:
        """Return the error of a store that does not reply."""
        return unavailable(Message("store_away", field="store"))

    def full(self) -> ApiError:
        """Return the error of a response for which the store has no space."""
        error = unavailable(Message("store_full", field="store"), retry_after=60)
        error.code = "store_full"
        return error

    async def find(self, response_id: str, owner: str, **options: Any) -> StoredResponse | None:
        """Return a stored response of a key. Raises ApiError (503)."""
        if self.store is None:
            return None
        try:
            return await self.store.read(response_id[:64], owner, **options)
        except StoreAwayError:
            raise self.unavailable() from None

    async def find_current(self, response_id: str, owner: str, **options: Any) -> StoredResponse | None:
        """Return a stored response of a key; one whose gateway has died is ended first. Raises ApiError (503)."""
        while True:
            response = await self.find(response_id, owner, **options)
            if response is None or not response.is_lost or self.store is None:
                return response
            whole = await self.find(response_id, owner)
            if whole is None:
                return None
            try:
                await end_lost(
                    self.store, whole, owner, self.defaults, error_object(unavailable(Message("response_lost")))
                )
            except StoreAwayError:
                raise self.unavailable() from None

    async def run_recorded(
        self,
        exchange: Exchange,
        perform: Callable[[Exchange], Awaitable[None]],
        end: Callable[[ApiError | None], Awaitable[None]],
    ) -> None:
        """Perform work without a client: note its record as of a request, and call `end` in any case."""
        error: ApiError | None = None
        with exchange.cleanup:
            try:
                with restarting_if_cancelled():
                    await perform(exchange)
            except ApiError as raised:
                error = raised
                exchange.record.error = raised.message.id
            except ClientGoneError:
                pass
            except Exception:
                error = server_error(exchange.record.request_id)
                raise
            finally:
                await end(error)
                exchange.record.status = exchange.record.status or (200 if error is None else error.status)
                exchange.record.end(route=exchange.record.route)
                self.receipts.end(exchange.record)
                publish(exchange.record)


def response_state(gateway: Gateway) -> ResponseState:
    """Return the parts of `gateway` that keep responses."""
    settings = gateway.settings
    defaults = Budgets(settings.store_seconds, settings.store_key_bytes, settings.store_bytes)
    return ResponseState(
        gateway.store, gateway.key_ring, gateway.tiers, defaults, settings.max_body_bytes, gateway.receipts
    )
