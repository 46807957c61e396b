"""Start processes, wait until they are ready, restart those that die or hang, and stop all of them in order."""

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
from itertools import groupby
from pathlib import Path
from typing import Final, Protocol

from services.runtime.end_tasks import end_tasks

RESTART_WINDOW_SECONDS: Final = 60.0
BACKOFF_SECONDS: Final = (0.2, 1.0, 3.0, 5.0)
"""The pauses before the first restart within the window, the second, and so on. The last one is repeated."""
PROBE_INTERVAL_SECONDS: Final = 0.1
HEALTH_INTERVAL_SECONDS: Final = 1.0
_PR_SET_PDEATHSIG: Final = 1


class StackError(Exception):
    """The stack cannot continue. The message is one line for the user at the terminal."""


class FaultyProcessError(Exception):
    """A running process cannot become ready, however long one waits. The message says in one line why."""


@dataclass(frozen=True)
class Program:
    """A process of the stack."""

    name: str
    argv: Sequence[str]
    environment: Mapping[str, str]
    """Variables that are added to those of the supervisor and take precedence over them."""
    log: Path
    is_ready: Callable[[], Awaitable[bool]]
    """Raises FaultyProcessError if the process cannot become ready any more."""
    find_fault: Callable[[], Awaitable[str | None]] | None = None
    """Returns in one line why the running process cannot continue, or None. A faulty process is restarted."""
    clean_up: Callable[[], None] = field(default=lambda: None)
    """Removes what a killed process leaves behind. Called before each start, and after the last end."""
    group: str = ""
    """Consecutive programs of the same group are stopped together."""
    ready_seconds: float = 60.0
    stop_seconds: float = 10.0
    explain: Callable[[str], str] = field(default=lambda log: log.strip().rpartition("\n")[2])
    """Returns the line of the log's text that explains why the process stopped."""


class Watcher(Protocol):
    """An observer of the processes."""

    def starting(self, name: str, pid: int) -> None:
        """Handle the start of a process."""

    def ready(self, name: str, seconds: float) -> None:
        """Handle that a process became ready, `seconds` after its start."""

    def died(self, name: str, exit_code: int, restart_in: float) -> None:
        """Handle that a process ended by itself; it will be restarted after `restart_in` seconds."""

    def unhealthy(self, name: str, why: str) -> None:
        """Handle that a process cannot continue and is killed."""

    def stopping(self, name: str) -> None:
        """Handle that a process was asked to stop."""


class _Child:
    """A running program."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.deaths: deque[float] = deque()
        self.process: asyncio.subprocess.Process | None = None

    async def spawn(self) -> asyncio.subprocess.Process:
        self.program.log.parent.mkdir(parents=True, exist_ok=True)
        self.program.clean_up()
        with self.program.log.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                *self.program.argv,
                env={**os.environ, **self.program.environment},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # In its own session: a terminal's Ctrl-C reaches only the supervisor, which stops children in order.
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
        self.program.clean_up()

    def kill(self) -> None:
        """Kill the process and its descendants at once, including those that are frozen or in other process groups."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            for pid in _session(self.process.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


class Supervisor:
    """Runs programs until `stop` is called, or until one of them can no longer be started."""

    def __init__(self, *watchers: Watcher) -> None:
        """Report the events of all processes to each of `watchers`."""
        self._watchers = watchers
        self._children: list[_Child] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def pids(self) -> dict[str, int]:
        """The process ids by program name."""
        return {c.program.name: c.process.pid for c in self._children if c.process is not None}

    async def start(self, programs: Sequence[Program]) -> None:
        """Start all programs at the same time, and return when all of them are ready. From then on they are kept alive.

        Raises:
            StackError: A program cannot be started, or dies or stays silent before it is ready.
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
        """Wait until a program cannot be restarted, and raise StackError then."""
        await asyncio.shield(self._failed)

    async def stop(self) -> None:
        """Stop the programs in reverse order, each with SIGTERM and after its `stop_seconds` with SIGKILL.

        The programs of a group are stopped together.
        """
        await end_tasks(*self._tasks)
        for _, together in groupby(reversed(self._children), lambda child: child.program.group or child.program.name):
            children = list(together)
            for watcher in self._watchers:
                for child in children:
                    watcher.stopping(child.program.name)
            await asyncio.gather(*(child.stop() for child in children))
        self._children.clear()
        self._failed.cancel()

    def kill(self) -> None:
        """Kill every program at once."""
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
            try:
                if await program.is_ready():
                    break
            except FaultyProcessError as error:
                raise StackError(
                    f"{program.name} cannot become ready, because {error}: {_reason(program)} (log: {program.log})"
                ) from None
            if time.monotonic() - began > program.ready_seconds:
                raise StackError(
                    f"{program.name} did not answer within {program.ready_seconds:g} s: {_reason(program)} "
                    f"(log: {program.log})"
                )
            await asyncio.sleep(PROBE_INTERVAL_SECONDS)
        for watcher in self._watchers:
            watcher.ready(program.name, time.monotonic() - began)

    async def _keep_alive(self, child: _Child) -> None:
        """Restart a program whenever it has ended or cannot continue, without a limit on the number of restarts."""
        is_restarted = False
        while child.process is not None:
            fault = await self._wait_for_end(child, is_ready=not is_restarted)
            if fault is not None:
                for watcher in self._watchers:
                    watcher.unhealthy(child.program.name, fault)
            child.kill()
            exit_code = await child.process.wait()
            now = time.monotonic()
            child.deaths.append(now)
            while child.deaths[0] < now - RESTART_WINDOW_SECONDS:
                child.deaths.popleft()
            pause = BACKOFF_SECONDS[min(len(child.deaths), len(BACKOFF_SECONDS)) - 1]
            for watcher in self._watchers:
                watcher.died(child.program.name, exit_code, pause)
            await asyncio.sleep(pause)
            try:
                await self._spawn(child)
            except OSError as error:
                self._fail(f"{child.program.name} died and could not be restarted: {error}")
                return
            is_restarted = True

    async def _wait_for_end(self, child: _Child, *, is_ready: bool) -> str | None:
        """Wait until the process has ended or cannot continue. Return None, or why it cannot continue."""
        assert child.process is not None  # noqa: S101 - it was started
        ended = asyncio.ensure_future(child.process.wait())
        faulty = asyncio.ensure_future(self._wait_for_fault(child.program, is_ready=is_ready))
        try:
            await asyncio.wait({ended, faulty}, return_when=asyncio.FIRST_COMPLETED)
            return None if ended.done() else faulty.result()
        finally:
            await end_tasks(ended, faulty)

    async def _wait_for_fault(self, program: Program, *, is_ready: bool) -> str:
        """Wait until a running program cannot continue, and return why."""
        began = time.monotonic()
        while not is_ready:
            try:
                is_ready = await program.is_ready()
            except FaultyProcessError as error:
                return str(error)
            seconds = time.monotonic() - began
            if is_ready:
                for watcher in self._watchers:
                    watcher.ready(program.name, seconds)
            elif program.find_fault is not None and seconds > program.ready_seconds:
                return f"it did not answer within {program.ready_seconds:g} s"
            else:
                await asyncio.sleep(PROBE_INTERVAL_SECONDS)
        while program.find_fault is not None:
            fault = await program.find_fault()
            if fault is not None:
                return fault
            await asyncio.sleep(HEALTH_INTERVAL_SECONDS)
        await asyncio.Future()
        raise AssertionError("unreachable: nothing sets the future")

    async def _spawn(self, child: _Child) -> None:
        process = await child.spawn()
        for watcher in self._watchers:
            watcher.starting(child.program.name, process.pid)

    def _fail(self, message: str) -> None:
        if not self._failed.done():
            self._failed.set_exception(StackError(message))


def _session(leader: int) -> list[int]:
    """Return the ids of all processes in the session of `leader`, which may have ended."""
    pids = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with contextlib.suppress(OSError, IndexError, ValueError):
                # The name, which is in parentheses, may contain any character.
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                if int(fields[3]) == leader:
                    pids.append(int(entry.name))
    return pids


def _reason(program: Program) -> str:
    try:
        text = program.log.read_text(errors="replace")[-64_000:]
    except OSError:
        text = ""
    return program.explain(text) or "its log is empty"


def _die_with_parent() -> None:
    # Without this, a supervisor killed with SIGKILL would leave its children behind.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
