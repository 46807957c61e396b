from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from services.stack import supervisor as module
from services.stack.supervisor import FaultyProcessError, Program, StackError, Supervisor
from tests.support.repository import ROOT
from tests.support.waits import until

STAY = "import time; open({ready!r}, 'w').close(); time.sleep(60)"
STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + STAY
SOCIABLE = """\
import pathlib, signal, sys, time
asked = pathlib.Path(sys.argv[1])
signal.signal(signal.SIGTERM, lambda *_: (asked / sys.argv[2]).touch())
open({ready!r}, "w").close()
while len(list(asked.iterdir())) < 2:
    time.sleep(0.01)
"""
"""A program that ends only after another one was asked to stop, too."""


@dataclass
class Journal:
    """A watcher that records the events."""

    events: list[tuple[str, str]] = field(default_factory=list)

    def starting(self, name: str, pid: int) -> None:
        self.events.append(("starting", name))

    def ready(self, name: str, seconds: float) -> None:
        self.events.append(("ready", name))

    def died(self, name: str, exit_code: int, restart_in: float) -> None:
        self.events.append(("died", name))

    def unhealthy(self, name: str, why: str) -> None:
        self.events.append(("unhealthy", name))

    def stopping(self, name: str) -> None:
        self.events.append(("stopping", name))


def program(tmp_path: Path, name: str, code: str, **options: float) -> Program:
    marker = tmp_path / f"{name}.ready"

    async def is_ready() -> bool:
        return marker.exists()

    return Program(
        name=name,
        argv=[sys.executable, "-c", code.format(ready=str(marker))],
        environment={},
        log=tmp_path / f"{name}.log",
        is_ready=is_ready,
        **options,
    )


@asynccontextmanager
async def supervised(journal: Journal) -> AsyncIterator[Supervisor]:
    supervisor = Supervisor(journal)
    try:
        yield supervisor
    finally:
        await supervisor.stop()


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def test_programs_are_stopped_in_reverse_order_and_no_process_remains(tmp_path: Path) -> None:
    journal = Journal()
    async with supervised(journal) as supervisor:
        await supervisor.start([program(tmp_path, "a", STAY), program(tmp_path, "b", STAY)])
        pids = list(supervisor.pids.values())
        assert all(alive(pid) for pid in pids)
    assert [event for event in journal.events if event[0] == "stopping"] == [("stopping", "b"), ("stopping", "a")]
    assert not any(alive(pid) for pid in pids)


async def test_the_programs_of_a_group_are_stopped_together(tmp_path: Path) -> None:
    journal = Journal()
    asked = tmp_path / "asked"
    asked.mkdir()
    async with supervised(journal) as supervisor:
        first = program(tmp_path, "first", STAY)
        two = [replace(program(tmp_path, name, SOCIABLE, stop_seconds=30.0), group="two") for name in ("a", "b")]
        two = [replace(one, argv=[*one.argv, str(asked), one.name]) for one in two]
        await supervisor.start([first, *two])
        async with asyncio.timeout(20):
            await supervisor.stop()
    assert [event[1] for event in journal.events if event[0] == "stopping"] == ["b", "a", "first"]


async def test_a_program_that_ignores_sigterm_is_killed_after_its_time(tmp_path: Path) -> None:
    async with supervised(Journal()) as supervisor:
        await supervisor.start([program(tmp_path, "stubborn", STUBBORN, stop_seconds=0.2)])
        pid = supervisor.pids["stubborn"]
    assert not alive(pid)


async def test_a_death_before_readiness_fails_the_start_with_the_reason_in_one_line(tmp_path: Path) -> None:
    async with supervised(Journal()) as supervisor:
        dies = program(tmp_path, "dies", "raise SystemExit('the disk is full')")
        with pytest.raises(StackError, match=r"^dies stopped with exit code 1 before it was ready: the disk is full"):
            await supervisor.start([program(tmp_path, "stays", STAY), dies])


async def test_a_program_that_is_not_ready_in_time_fails_the_start(tmp_path: Path) -> None:
    async with supervised(Journal()) as supervisor:
        with pytest.raises(StackError, match="silent did not answer within"):
            await supervisor.start([program(tmp_path, "silent", "import time; time.sleep(60)", ready_seconds=0.3)])


async def test_a_program_that_dies_is_restarted(tmp_path: Path) -> None:
    journal = Journal()
    async with supervised(journal) as supervisor:
        await supervisor.start([program(tmp_path, "a", STAY)])
        first = supervisor.pids["a"]
        os.kill(first, signal.SIGKILL)
        await until(lambda: supervisor.pids["a"] != first)
        assert alive(supervisor.pids["a"])
        assert ("died", "a") in journal.events
        # Whoever watches the terminal learns that it works again.
        await until(lambda: journal.events[-1] == ("ready", "a"))


async def test_a_program_that_cannot_be_started_fails_the_start_in_one_line(tmp_path: Path) -> None:
    async with supervised(Journal()) as supervisor:
        missing = replace(program(tmp_path, "missing", STAY), argv=[str(tmp_path / "nowhere")])
        with pytest.raises(StackError, match=r"^missing could not be started: .*nowhere'$"):
            await supervisor.start([program(tmp_path, "stays", STAY), missing])
        pid = supervisor.pids["stays"]
    assert not alive(pid)


async def test_a_program_that_cannot_be_restarted_is_a_failure_of_the_stack(tmp_path: Path) -> None:
    async with supervised(Journal()) as supervisor:
        python = tmp_path / "python"
        python.symlink_to(sys.executable)
        stays = program(tmp_path, "a", STAY)
        await supervisor.start([replace(stays, argv=[str(python), *stays.argv[1:]])])
        python.unlink()
        os.kill(supervisor.pids["a"], signal.SIGKILL)
        with pytest.raises(StackError, match=r"^a died and could not be restarted: .*python'$"):
            async with asyncio.timeout(20):
                await supervisor.wait_until_failure()


async def test_a_program_is_restarted_after_any_number_of_deaths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BACKOFF_SECONDS", (0.01, 0.01, 0.02))
    journal = Journal()
    async with supervised(journal) as supervisor:
        await supervisor.start([program(tmp_path, "weary", STAY)])
        failing = asyncio.create_task(supervisor.wait_until_failure())
        for _ in range(10):
            killed = supervisor.pids["weary"]
            os.kill(killed, signal.SIGKILL)
            await until(lambda killed=killed: supervisor.pids["weary"] != killed)
        assert not failing.done()
        assert alive(supervisor.pids["weary"])
        failing.cancel()
    assert journal.events.count(("died", "weary")) == 10


async def test_a_faulty_program_is_killed_with_its_whole_session_and_restarted(tmp_path: Path) -> None:
    """The session includes a stopped process and one in another process group."""
    code = (
        "import os, signal, subprocess, sys, time\n"
        "sleep = [sys.executable, '-c', 'import time; time.sleep(600)']\n"
        "stopped = subprocess.Popen(sleep)\n"
        "apart = subprocess.Popen(sleep, process_group=0)\n"
        "os.kill(stopped.pid, signal.SIGSTOP)\n"
        "print(stopped.pid, apart.pid, flush=True)\n"
        "open({ready!r}, 'w').close(); time.sleep(600)"
    )
    journal, faults = Journal(), ["it hangs"]

    async def find_fault() -> str | None:
        return faults.pop() if faults else None

    async with supervised(journal) as supervisor:
        stuck = replace(program(tmp_path, "stuck", code), find_fault=find_fault)
        await supervisor.start([stuck])
        first = supervisor.pids["stuck"]
        children = [int(pid) for pid in stuck.log.read_text().split()]
        assert len(children) == 2
        await until(lambda: supervisor.pids["stuck"] != first)
        await until(lambda: not any(alive(pid) for pid in (first, *children)))
        assert [event for event in journal.events if event[0] in ("unhealthy", "died")] == [
            ("unhealthy", "stuck"),
            ("died", "stuck"),
        ]
        await until(lambda: journal.events.count(("ready", "stuck")) == 2)


async def test_a_program_that_is_not_ready_after_its_restart_is_restarted_again(tmp_path: Path) -> None:
    journal, marker = Journal(), tmp_path / "a.ready"

    async def find_fault() -> str | None:
        return None

    async with supervised(journal) as supervisor:
        await supervisor.start([replace(program(tmp_path, "a", STAY, ready_seconds=2), find_fault=find_fault)])
        marker.unlink()
        first = supervisor.pids["a"]
        marker.mkdir()  # The next one fails to open it, and dies at once.
        os.kill(first, signal.SIGKILL)
        await until(lambda: journal.events.count(("died", "a")) >= 2)
        marker.rmdir()
        await until(marker.is_file)
        await until(lambda: journal.events.count(("ready", "a")) >= 2)


async def test_a_program_that_cannot_become_ready_after_its_restart_is_restarted_at_once(tmp_path: Path) -> None:
    """A Triton whose model's process died before the supervisor has seen it ready."""
    journal, is_faulty = Journal(), asyncio.Event()
    usual = program(tmp_path, "a", STAY, ready_seconds=600)

    async def is_ready() -> bool:
        if is_faulty.is_set():
            raise FaultyProcessError("its model has died")
        return await usual.is_ready()

    async with supervised(journal) as supervisor:
        await supervisor.start([replace(usual, is_ready=is_ready)])
        is_faulty.set()
        os.kill(supervisor.pids["a"], signal.SIGKILL)
        await until(lambda: ("unhealthy", "a") in journal.events)
        is_faulty.clear()
        await until(lambda: journal.events.count(("ready", "a")) == 2)


async def test_the_first_start_of_a_program_that_cannot_become_ready_fails_at_once(tmp_path: Path) -> None:
    async def is_ready() -> bool:
        raise FaultyProcessError("its model has died")

    async with supervised(Journal()) as supervisor:
        with pytest.raises(StackError, match=r"^a cannot become ready, because its model has died: "):
            await supervisor.start([replace(program(tmp_path, "a", STAY, ready_seconds=600), is_ready=is_ready)])


async def test_children_end_when_the_supervisor_is_killed(tmp_path: Path) -> None:
    script = f"""
import asyncio, sys
from pathlib import Path
sys.path.insert(0, {str(ROOT)!r})
from tests.contract.stack.test_supervisor import Journal, STAY, program
from services.stack.supervisor import Supervisor
async def main():
    supervisor = Supervisor(Journal())
    await supervisor.start([program(Path({str(tmp_path)!r}), "child", STAY)])
    print(supervisor.pids["child"], flush=True)
    await asyncio.sleep(60)
asyncio.run(main())
"""
    parent = await asyncio.create_subprocess_exec(sys.executable, "-c", script, stdout=asyncio.subprocess.PIPE)
    try:
        assert parent.stdout is not None
        async with asyncio.timeout(30):
            child = int(await parent.stdout.readline())
    finally:
        parent.kill()
        await parent.wait()
    await until(lambda: not alive(child))
