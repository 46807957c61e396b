"""The record of a Starlette request, for endpoints outside of the pipeline."""

from __future__ import annotations

from starlette.requests import Request

from services.gateway.record import RequestRecord


def record_of(request: Request) -> RequestRecord:
    """Return the request's record."""
    record: RequestRecord = request.state.record
    return record
