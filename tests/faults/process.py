"""A process of the system, which a test can stop, freeze or kill."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
from prometheus_client.parser import text_string_to_metric_families

from services.stack.ports import LOOPBACK
from tests.support.repository import ROOT


@contextlib.contextmanager
def frozen_process(pid: int) -> Iterator[None]:
    """Freeze the process with this id until the context ends."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@dataclass
class Process:
    """One process of the system."""

    name: str
    argv: list[str]
    environment: Mapping[str, str]
    log: Path
    port: int
    metrics_port: int = 0
    running: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"{LOOPBACK}:{self.port}"

    @property
    def pid(self) -> int:
        assert self.running is not None
        return self.running.pid

    def start(self) -> None:
        with self.log.open("ab") as output:
            self.running = subprocess.Popen(
                self.argv,
                cwd=ROOT,
                env={**os.environ, **self.environment},
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def signal(self, number: signal.Signals) -> None:
        assert self.running is not None
        self.running.send_signal(number)

    def kill(self) -> None:
        """Kill the process and wait for its end."""
        assert self.running is not None
        if self.running.poll() is None:
            self.running.send_signal(signal.SIGKILL)
        self.running.wait(20)

    def stop(self) -> None:
        """Ask the process to end, also if it is frozen, and kill it if it does not end within two seconds."""
        if self.running is None or self.running.poll() is not None:
            return
        self.signal(signal.SIGCONT)
        self.signal(signal.SIGTERM)
        try:
            self.running.wait(2)
        except subprocess.TimeoutExpired:
            self.kill()

    @contextlib.contextmanager
    def frozen(self) -> Any:
        """Freeze the process until the context ends."""
        with frozen_process(self.pid):
            yield

    async def exit_code(self, seconds: float = 30.0) -> int:
        """Wait until the process ends, and return its exit code."""
        assert self.running is not None
        return await asyncio.to_thread(self.running.wait, seconds)

    async def metrics(self) -> dict[str, float]:
        """Return its metrics, by name and labels as in the text format."""
        async with httpx.AsyncClient() as client:
            text = (await client.get(f"http://{LOOPBACK}:{self.metrics_port}/metrics", timeout=10)).text
        values = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                labels = ",".join(f'{k}="{v}"' for k, v in sorted(sample.labels.items()))
                values[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
        return values

    async def residue(self) -> dict[str, float]:
        """Return the numbers of its threads and of its event loop's tasks, which requests must not leave behind."""
        return {"threads": psutil.Process(self.pid).num_threads(), "tasks": await self.metric("vilix_event_loop_tasks")}

    async def metric(self, name: str) -> float:
        """Return the sum of a metric over its labels."""
        return sum(value for key, value in (await self.metrics()).items() if key.partition("{")[0] == name)
