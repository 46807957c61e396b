"""Finds the gateway and the record of a Starlette request, for endpoints outside of the pipeline."""

from __future__ import annotations

from starlette.requests import Request

from services.gateway.record import RequestRecord
from services.gateway.wiring import Gateway


def gateway_of(request: Request) -> Gateway:
    """Return the gateway that serves the request."""
    gateway: Gateway = request.app.state.gateway
    return gateway


def record_of(request: Request) -> RequestRecord:
    """Return the request's record."""
    record: RequestRecord = request.state.record
    return record
