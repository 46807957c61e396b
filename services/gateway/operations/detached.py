"""An exchange without a client, for work that goes on after its client was answered."""

from __future__ import annotations

import asyncio
from typing import Any

from services.gateway.edge.exchange import Exchange
from services.gateway.receipt_notes import ReceiptNotes
from services.gateway.record import RequestRecord

ROUTE = "background"


def detached(exchange: Exchange) -> Exchange:
    """Return an exchange with the headers and the request id of another, whose client never leaves nor reads."""
    record = RequestRecord(exchange.record.request_id, exchange.record.method, route=ROUTE)
    record.receipt = exchange.record.receipt
    record.receipt.is_background = True
    exchange.record.receipt = ReceiptNotes(is_handed_over=True)
    record.key_id, record.stream = exchange.record.key_id, exchange.record.stream
    record.trace = exchange.record.trace and exchange.record.trace.follow()
    record.model, record.model_label = exchange.record.model, exchange.record.model_label
    scope = {"type": "http", "headers": exchange.headers.raw, "state": {"record": record}}
    return Exchange(scope, _receive, _send)


async def _receive() -> Any:
    await asyncio.Event().wait()


async def _send(message: Any) -> None:
    pass
