"""Traces end with the test that began them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from services.runtime.tracing.trace_context import CURRENT


@pytest.fixture(autouse=True)
def _no_trace() -> Iterator[None]:
    yield
    CURRENT.set(None)
