"""Structured-output requests cannot stop, slow down or fill the processes that serve other requests.

Generated requests go through gateway, worker and Triton to the real engine llamacpp, several at a time, while a stream
of another key runs on the same model. The seed is printed; `VILIX_HOSTILE_SEED=N` repeats a run.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import sys
import time
from collections import Counter, deque
from collections.abc import AsyncIterator
from itertools import pairwise
from typing import Any, Final

import httpx
import orjson
import psutil
import pytest

from services.gateway.tenancy import keys
from tests.faults.chat_stream import MODEL
from tests.faults.system import System, running_system
from tests.support.environments import python_of
from tests.support.fault_table import FULL, record, times
from tests.support.hostile_structured_output.cases import Case, cases, is_longer, load_suite
from tests.support.messages import message_id_of
from tests.support.models import smollm2
from tests.support.waits import until

SMALL_MODEL: Final = "smollm2-135m"
SECONDS: Final = times(25, 240)
"""The duration of the test: half a minute with the start of the system, and 4 minutes in `make faults`."""
AT_ONCE: Final = 3
MAX_BODY_BYTES: Final = 2**20
ANSWER_SECONDS: Final = 10.0
GROWTH_MEGABYTES: Final = 200
GAP_SECONDS: Final = 1.0
STALLED_SECONDS: Final = 10.0
"""A gap in the probe's stream that the load of the machine cannot explain."""
SEED: Final = int(os.environ.get("VILIX_HOSTILE_SEED") or (secrets.randbelow(10**6) if FULL else 1))

pytestmark = pytest.mark.timeout(SECONDS + 240)


@pytest.fixture(scope="module")
def suite() -> list[Any]:
    directory = python_of("schema-suite").parents[1]
    (archive,) = directory.glob("jsonschema-*.tar.gz")
    return load_suite(archive)


@pytest.fixture(scope="module")
async def small_system(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[System]:
    directory = tmp_path_factory.mktemp("hostile")
    small = smollm2()
    timeouts = {"VILIX_IDLE_SECONDS": "30"}
    models = {"VILIX_MODELS": f"{MODEL}={small},{SMALL_MODEL}={small}"}
    async with running_system(
        directory,
        worker_settings={**timeouts, **models},
        gateway_settings={**timeouts, "VILIX_EXPECTED_MODELS": f"{MODEL},{SMALL_MODEL}"},
        more_models={SMALL_MODEL: ("llamacpp", {"model": str(small / "model.gguf"), "context_length": 2048})},
    ) as running:
        await until(lambda: _is_served(running), 60, "the small model is served")
        yield running


async def _is_served(system: System) -> bool:
    async with httpx.AsyncClient(headers={"Authorization": f"Bearer {system.api_key}"}) as client:
        listed = (await client.get(f"{system.url}/api/models")).json()["data"]
    return any(model["id"] == SMALL_MODEL and model["available"] for model in listed)


class Probe:
    """Consecutive streams of another key on the same model, read by separate processes."""

    def __init__(self, system: System, api_key: str) -> None:
        self._system = system
        self._environment = {**os.environ, "VILIX_API_KEY": api_key}
        self.moments = [time.monotonic()]
        """The start of each stream and the arrival of each event, by a clock that all processes share."""

    async def run(self) -> None:
        question = {"role": "user", "content": "Tell me a very long story."}
        content = {"model": SMALL_MODEL, "messages": [question], "stream": True, "max_tokens": 1500, "ignore_eos": True}
        command = [sys.executable, "-m", "tests.faults.stream_reader", self._system.gateway.address]
        pipe = asyncio.subprocess.PIPE
        while True:
            process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, env=self._environment)
            assert process.stdin is not None
            assert process.stdout is not None
            try:
                process.stdin.write(orjson.dumps(content))
                process.stdin.write_eof()
                events = 0
                async for line in process.stdout:
                    self.moments.append(float(line))
                    events += 1
                assert events > 100, f"a stream of the probe ended after {events} events"
            finally:
                if process.returncode is None:
                    process.kill()
                await process.wait()

    def worst_gap(self) -> float:
        return max(later - earlier for earlier, later in pairwise([*self.moments, time.monotonic()]))


class Memory:
    """The resident memory of all processes that run at the beginning, which excludes the trials of compilations."""

    def __init__(self, system: System) -> None:
        roots = (system.triton.process.pid, *(process.pid for process in (*system.workers, *system.gateways)))
        self.processes = [
            process
            for root in roots
            for process in (psutil.Process(root), *psutil.Process(root).children(recursive=True))
        ]
        self.names = {process.pid: process.name() for process in self.processes}
        self.before = {process.pid: process.memory_info().rss for process in self.processes}
        self.grown: dict[str, float] = {}

    def dead(self) -> list[str]:
        return [f"{self.names[p.pid]} {p.pid}" for p in self.processes if not p.is_running() or p.status() == "zombie"]

    async def run(self) -> None:
        while not self.dead():
            for process in self.processes:
                with contextlib.suppress(psutil.NoSuchProcess):
                    grown = (process.memory_info().rss - self.before[process.pid]) / 1e6
                    name = f"{self.names[process.pid]} {process.pid}"
                    self.grown[name] = max(grown, self.grown.get(name, 0.0))
            await asyncio.sleep(0.2)


class Run:
    """The results of the generated requests."""

    def __init__(self, system: System, generated: Any) -> None:
        self.statuses: Counter[int] = Counter()
        self.slowest = (0.0, "")
        self.skipped = 0
        self.wrong: list[str] = []
        self.recent: deque[str] = deque(maxlen=2 * AT_ONCE)
        """The latest requests, one of which may have killed a process."""
        self._system = system
        self._generated = generated
        self._generating = asyncio.Lock()
        self._until = time.monotonic() + SECONDS

    async def send_many(self) -> None:
        async with httpx.AsyncClient(timeout=ANSWER_SECONDS * 3) as client:
            while time.monotonic() < self._until and not self.wrong:
                async with self._generating:
                    case, content = await asyncio.to_thread(self._next)
                if content is None:
                    self.skipped += 1
                else:
                    await self.send(client, case, content)

    def _next(self) -> tuple[Case, bytes | None]:
        """Return the next case and its body; None for a large body, which could take half a minute to serialize."""
        case = next(self._generated)
        content = None if is_longer(case.fields, MAX_BODY_BYTES) else body_of(case)
        return case, content if content is not None and len(content) <= MAX_BODY_BYTES else None

    async def send(self, client: httpx.AsyncClient, case: Case, content: bytes) -> None:
        headers = {"Authorization": f"Bearer {self._system.api_key}", "Content-Type": "application/json"}
        began = time.monotonic()
        self.recent.append(content[:1000].decode())
        description = f"{case.label}: {content[:3000].decode()}"
        try:
            response = await client.post(f"{self._system.url}/api/chat/completions", content=content, headers=headers)
        except httpx.HTTPError as error:
            self.wrong.append(f"{error!r} for {description}")
            return
        seconds = time.monotonic() - began
        self.statuses[response.status_code] += 1
        self.slowest = max(self.slowest, (seconds, description[:300]))
        if response.status_code not in (200, 400):
            self.wrong.append(f"{response.status_code} {response.text[:500]} for {description}")
        error = response.json().get("error") or {}
        # A body with too many values or too deep nesting is rejected before its fields are read.
        if error and not error["param"] and not str(message_id_of(response)).startswith("body_"):
            self.wrong.append(f"the error names no field: {response.text[:500]} for {description}")


def body_of(case: Case) -> bytes:
    question = {"role": "user", "content": "Answer."}
    # orjson cannot write integers of more than 64 bits.
    return json.dumps({"model": SMALL_MODEL, "messages": [question], "max_tokens": 12, **case.fields}).encode()


async def test_hostile_structured_output_does_not_harm_other_requests(
    small_system: System, suite: list[Any], record_property: Any
) -> None:
    _, other_key = await keys.create(small_system.redis, name="probe")
    run = Run(small_system, cases(SEED, suite))
    probe = Probe(small_system, other_key)
    probing = asyncio.create_task(probe.run())
    await until(lambda: len(probe.moments) > 50, what="the probe streams")
    # The first accepted request starts processes, which must run before memory is measured.
    warm_up = Case("warm-up", {"response_format": {"type": "json_object"}})
    async with httpx.AsyncClient(timeout=30) as client:
        await run.send(client, warm_up, body_of(warm_up))
    memory = Memory(small_system)
    watching = asyncio.create_task(memory.run())
    del probe.moments[:-1]
    try:
        await asyncio.gather(*(run.send_many() for _ in range(AT_ONCE)))
        assert not memory.dead(), f"seed {SEED}: {memory.dead()} died after one of {[*run.recent]}; {run.wrong}"
        gap = probe.worst_gap()
        assert not probing.done(), probing.exception()
    finally:
        for task in (probing, watching):
            task.cancel()
        await asyncio.gather(probing, watching, return_exceptions=True)
    seconds, slowest = run.slowest
    growth, grower = max((grown, name) for name, grown in memory.grown.items())
    statuses = ", ".join(f"{count} × {status}" for status, count in sorted(run.statuses.items()))
    measured = (
        f"seed {SEED}: {run.statuses.total()} run ({statuses}), {run.skipped} skipped; "
        f"slowest response {seconds:.1f} s; {growth:+.0f} MB at most ({grower.partition(' ')[0]}); "
        f"probe's worst gap {gap:.2f} s"
    )
    record_property("summary", measured)
    assert run.wrong == [], measured
    assert growth < GROWTH_MEGABYTES, f"{grower}: {measured}"
    assert gap < STALLED_SECONDS, measured
    assert {200, 400} == set(run.statuses), measured
    record(
        "Hostile structured output: schemas, tools, regexes, choices and grammars, generated",
        f"no crash; at most +{GROWTH_MEGABYTES} MB in any process but the trials; every response within "
        f"{ANSWER_SECONDS:g} s; no gap over {GAP_SECONDS:g} s in a stream of another key",
        measured,
        met=gap <= GAP_SECONDS and seconds <= ANSWER_SECONDS,
    )
    assert seconds < 2 * ANSWER_SECONDS, f"{slowest}: {measured}"
