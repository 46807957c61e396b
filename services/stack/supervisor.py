"""Starts processes, waits until they answer, restarts those that die, and stops all of them in order."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

RESTART_WINDOW_SECONDS: Final = 60.0
RESTARTS_IN_WINDOW: Final = 3
BACKOFF_SECONDS: Final = (0.2, 1.0, 3.0)
PROBE_INTERVAL_SECONDS: Final = 0.1
_PR_SET_PDEATHSIG: Final = 1


class StackError(Exception):
    """The stack cannot go on. The message is one line, for the person at the terminal."""


@dataclass(frozen=True)
class Program:
    """A process of the stack."""

    name: str
    argv: Sequence[str]
    environment: Mapping[str, str]
    """Added to, and taking precedence over, the environment of the supervisor."""
    log: Path
    is_ready: Callable[[], Awaitable[bool]]
    ready_seconds: float = 60.0
    stop_seconds: float = 10.0
    explain: Callable[[str], str] = field(default=lambda log: log.strip().rpartition("\n")[2])
    """Picks the line that says why it stopped, out of the text of its log."""


class Watcher(Protocol):
    """Is told what happens to the processes."""

    def starting(self, name: str, pid: int) -> None:
        """Its process was started."""

    def ready(self, name: str, seconds: float) -> None:
        """It answers, `seconds` after its start."""

    def died(self, name: str, exit_code: int, restart_in: float) -> None:
        """It ended by itself and will be started again after `restart_in` seconds."""

    def stopping(self, name: str) -> None:
        """It was asked to end."""


class _Child:
    """A running program."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.deaths: deque[float] = deque()
        self.process: asyncio.subprocess.Process | None = None

    async def spawn(self) -> asyncio.subprocess.Process:
        self.program.log.parent.mkdir(parents=True, exist_ok=True)
        with self.program.log.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                *self.program.argv,
                env={**os.environ, **self.program.environment},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # A session of its own: a terminal's Ctrl-C reaches only the supervisor, which stops children in order.
                start_new_session=True,
                preexec_fn=_die_with_parent,
            )
        return self.process

    async def stop(self) -> None:
        process = self.process
        if process is None:
            return
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self.program.stop_seconds):
                    await process.wait()
        self.kill()
        await process.wait()

    def kill(self) -> None:
        """End it and whatever it started, at once."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)


class Supervisor:
    """Runs programs until it is told to stop, or one of them cannot be kept alive."""

    def __init__(self, *watchers: Watcher) -> None:
        """Tells each of `watchers` what happens."""
        self._watchers = watchers
        self._children: list[_Child] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def pids(self) -> dict[str, int]:
        """Process ids by program name."""
        return {c.program.name: c.process.pid for c in self._children if c.process is not None}

    async def start(self, programs: Sequence[Program]) -> None:
        """Start all programs at the same time, and return when every one of them answers.

        Raises StackError when one cannot be started, dies or stays silent before that. Afterwards they are kept alive.
        """
        for program in programs:
            child = _Child(program)
            self._children.append(child)
            try:
                program.log.unlink(missing_ok=True)
                await self._spawn(child)
            except OSError as error:
                raise StackError(f"{program.name} could not be started: {error}") from None
        async with contextlib.AsyncExitStack() as stack:
            starts = [asyncio.create_task(self._wait_until_ready(child)) for child in self._children[-len(programs) :]]
            for start in starts:
                stack.callback(start.cancel)
            for done in asyncio.as_completed(starts):
                await done
        for child in self._children[-len(programs) :]:
            task = asyncio.create_task(self._keep_alive(child))
            self._tasks.add(task)

    async def wait_until_failure(self) -> None:
        """Raise StackError once a program cannot be kept alive; wait forever otherwise."""
        await asyncio.shield(self._failed)

    async def stop(self) -> None:
        """Stop the programs, last started first, each with SIGTERM and after its `stop_seconds` with SIGKILL."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for child in reversed(self._children):
            for watcher in self._watchers:
                watcher.stopping(child.program.name)
            await child.stop()
        self._children.clear()
        self._failed.cancel()

    def kill(self) -> None:
        """End every program at once."""
        for child in self._children:
            child.kill()

    async def _wait_until_ready(self, child: _Child) -> None:
        program, process, began = child.program, child.process, time.monotonic()
        while True:
            if process is not None and process.returncode is not None:
                raise StackError(
                    f"{program.name} stopped with exit code {process.returncode} before it was ready: "
                    f"{_reason(program)} (log: {program.log})"
                )
            if await program.is_ready():
                break
            if time.monotonic() - began > program.ready_seconds:
                raise StackError(
                    f"{program.name} did not answer within {program.ready_seconds:g} s: {_reason(program)} "
                    f"(log: {program.log})"
                )
            await asyncio.sleep(PROBE_INTERVAL_SECONDS)
        for watcher in self._watchers:
            watcher.ready(program.name, time.monotonic() - began)

    async def _keep_alive(self, child: _Child) -> None:
        while child.process is not None:
            exit_code = await child.process.wait()
            child.kill()
            now = time.monotonic()
            child.deaths.append(now)
            while child.deaths[0] < now - RESTART_WINDOW_SECONDS:
                child.deaths.popleft()
            if len(child.deaths) > RESTARTS_IN_WINDOW:
                self._fail(
                    f"{child.program.name} died {len(child.deaths)} times in {RESTART_WINDOW_SECONDS:g} s, last with "
                    f"exit code {exit_code}: {_reason(child.program)} (log: {child.program.log})"
                )
                return
            pause = BACKOFF_SECONDS[len(child.deaths) - 1]
            for watcher in self._watchers:
                watcher.died(child.program.name, exit_code, pause)
            await asyncio.sleep(pause)
            try:
                await self._spawn(child)
            except OSError as error:
                self._fail(f"{child.program.name} died, and could not be started again: {error}")
                return

    async def _spawn(self, child: _Child) -> None:
        process = await child.spawn()
        for watcher in self._watchers:
            watcher.starting(child.program.name, process.pid)

    def _fail(self, message: str) -> None:
        if not self._failed.done():
            self._failed.set_exception(StackError(message))


def _reason(program: Program) -> str:
    try:
        text = program.log.read_text(errors="replace")[-64_000:]
    except OSError:
        text = ""
    return program.explain(text) or "it said nothing"


def _die_with_parent() -> None:
    # Without this, a supervisor killed with SIGKILL would leave its children behind.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
