"""Running systems to break, and an end to the connections that tests leave open."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.faults.system import Connection, System, running_system


@pytest.fixture(autouse=True)
async def no_connection_stays() -> AsyncIterator[None]:
    """A test that fails leaves connections open."""
    yield
    await Connection.hang_up_all()


@pytest.fixture
async def system(tmp_path: Path) -> AsyncIterator[System]:
    """One worker and one gateway."""
    async with running_system(tmp_path) as running:
        yield running


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncIterator[System]:
    """Two workers behind one gateway."""
    async with running_system(tmp_path, workers=2) as running:
        yield running
