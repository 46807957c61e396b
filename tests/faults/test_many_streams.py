"""Very many streams at the same time complete on a busy machine while the worker and its engine live."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest

from tests.faults.chat_stream import body
from tests.faults.paced_clients import StreamResult, run_streams
from tests.faults.recordings import PACED
from tests.faults.system import running_system
from tests.support.fault_table import percentile99, record, times

pytestmark = pytest.mark.timeout(600)

STREAMS: Final = times(100, 1000)
TOKENS: Final = times(20, 200)
START_SECONDS: Final = times(3, 30)
DEFAULTS: Final = {"VILIX_IDLE_SECONDS": "30"}, {"VILIX_IDLE_SECONDS": "35"}
"""The idle timeouts of the worker and the gateway in production."""


def summary(results: list[StreamResult]) -> str:
    """Format the numbers of complete, failed and cut streams, and the first errors."""
    errors = [error for result in results for error in result.errors]
    complete = sum(result.done and not result.errors for result in results)
    cut = sum(result.was_cut for result in results)
    return f"{complete} complete, {len(errors)} errors, {cut} cut" + (f": {errors[:3]}" if errors else "")


async def test_many_paced_streams_complete_without_timeouts(tmp_path: Path) -> None:
    worker, gateway = DEFAULTS
    async with running_system(tmp_path, slots=1024, worker_settings=worker, gateway_settings=gateway) as system:
        results = await run_streams(system, body(PACED, max_tokens=TOKENS), count=STREAMS, seconds=START_SECONDS)
    assert len(results) == STREAMS
    assert all(result.done and not result.errors for result in results), summary(results)
    assert {result.tokens for result in results} == {TOKENS}
    gaps = [gap for result in results for gap in result.gaps]
    p99 = percentile99(gaps) * 1000
    first = percentile99([result.first for result in results]) * 1000
    record(
        f"{STREAMS:,} streams at the same time on two cores, 2 tokens/s and {TOKENS} tokens each",
        f"{STREAMS:,} complete, 0 errors, 0 cut",
        f"{summary(results)}; gap p99 {p99:.0f}, max {max(gaps) * 1000:.0f} ms; first event p99 {first:.0f} ms",
        met=True,
    )
