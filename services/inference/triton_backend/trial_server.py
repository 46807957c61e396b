"""`python trial_server.py MODULE ARGUMENTS SYS_PATH`: compiles structured outputs, each in a limited process.

The program loads what the engine's module MODULE needs to compile structured outputs, once, and then forks a child for
each trial. The child inherits the loaded data, so that a trial takes milliseconds, and has its own limits on CPU time,
memory and stack: a structured output that exceeds them, or crashes the engine's library, ends only the child.

Standard input is a Unix socket. `{}` and a line end are written to it when the program is ready, or `{"problem": TEXT}`
if it cannot become ready. Each message received carries one file descriptor, a stream socket to the caller of a trial:
the structured output is read from it up to its end, and the outcome is written to it. The program ends, with all
trials, when standard input is closed.

It has one thread and imports only the standard library, so that forking is safe.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import json
import os
import resource
import select
import signal
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

CPU_SECONDS: Final = 2
WALL_SECONDS: Final = 7.0
"""The longest duration of a trial, for a busy machine on which it gets little CPU time."""
MEMORY_BYTES: Final = 512 * 2**20
"""The largest growth of a trial's address space."""
STACK_BYTES: Final = 4 * 2**20
"""Less than the stack of the engine's own threads, so that a structured output that passes fits there as well."""
NICENESS: Final = 5
MAX_STRUCTURED_OUTPUT_BYTES: Final = 4 * 2**20
_PR_SET_PDEATHSIG: Final = 1


@dataclass
class _Trial:
    """A child that compiles one structured output."""

    pid: int
    caller: socket.socket
    alive: int
    """The read end of a pipe that only the child holds open."""
    deadline: float
    is_late: bool = False


def main() -> None:
    """Serve trials until standard input is closed."""
    module, arguments, path = sys.argv[1], json.loads(sys.argv[2]), json.loads(sys.argv[3])
    sys.path[:] = path
    control = socket.socket(fileno=os.dup(0))
    os.nice(NICENESS)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        compile_structured_output = importlib.import_module(module).prepare(arguments)
    except Exception as error:  # noqa: BLE001 - every error is reported to the model
        control.sendall(json.dumps({"problem": f"{type(error).__name__}: {error}"}).encode() + b"\n")
        return
    control.sendall(b"{}\n")
    Server(control, compile_structured_output).run()


class Server:
    """Forks trials and reports their outcomes."""

    def __init__(self, control: socket.socket, compile_structured_output: Callable[[str, str], None]) -> None:
        """Create a server that tries structured outputs with `compile_structured_output`, called with kind and text.

        It raises a RequestError for an invalid one.
        """
        self._control: Final = control
        self._compile: Final = compile_structured_output
        self._trials: Final[dict[int, _Trial]] = {}
        """The running trials, by the read end of their pipes."""

    def run(self) -> None:
        """Serve until the control socket is closed; then end all trials."""
        try:
            while True:
                now = time.monotonic()
                wait = min((trial.deadline - now for trial in self._trials.values() if not trial.is_late), default=None)
                watched = [self._control.fileno(), *self._trials]
                readable, _, _ = select.select(watched, [], [], None if wait is None else max(0.0, wait))
                if self._control.fileno() in readable and not self._accept():
                    return
                for descriptor in readable:
                    if descriptor in self._trials:
                        self._report(self._trials.pop(descriptor))
                self._end_late()
        finally:
            for trial in self._trials.values():
                os.kill(trial.pid, signal.SIGKILL)

    def _accept(self) -> bool:
        """Start the requested trial. Return False when the control socket is closed."""
        try:
            message, descriptors, _, _ = socket.recv_fds(self._control, 1, 1)
        except ConnectionError:
            return False
        if not message:
            return False
        for descriptor in descriptors:
            self._start(socket.socket(fileno=descriptor))
        return True

    def _start(self, caller: socket.socket) -> None:
        ours, theirs = os.pipe()
        parent = os.getpid()
        try:
            pid = os.fork()
        except OSError:
            os.close(ours)
            os.close(theirs)
            caller.close()
            return
        if pid == 0:
            status = 1
            try:
                os.close(ours)
                self._be_trial(caller, parent)
                status = 0
            finally:
                os._exit(status)
        os.close(theirs)
        self._trials[ours] = _Trial(pid, caller, ours, time.monotonic() + WALL_SECONDS)

    def _report(self, trial: _Trial) -> None:
        os.close(trial.alive)
        _, status, usage = os.wait4(trial.pid, 0)
        code = os.waitstatus_to_exitcode(status)
        outcome = {"exit": code, "late": trial.is_late, "cpu": round(usage.ru_utime + usage.ru_stime, 3)}
        with contextlib.suppress(OSError), trial.caller:
            trial.caller.setblocking(False)
            trial.caller.sendall(json.dumps(outcome).encode() + b"\n")

    def _end_late(self) -> None:
        now = time.monotonic()
        for trial in self._trials.values():
            if not trial.is_late and now >= trial.deadline:
                trial.is_late = True
                os.kill(trial.pid, signal.SIGKILL)

    def _be_trial(self, caller: socket.socket, parent: int) -> None:
        """Compile one structured output under limits, and write the outcome. Runs in the child."""
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:
            return
        self._control.close()
        for trial in self._trials.values():
            trial.caller.close()
            os.close(trial.alive)
        nothing = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(nothing, descriptor)
        with contextlib.suppress(OSError):
            # The kernel is to kill this process first when memory runs out.
            Path("/proc/self/oom_score_adj").write_text("1000")
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        kind, text = json.loads(_read(caller))
        size, before = _memory()
        resource.setrlimit(resource.RLIMIT_STACK, (STACK_BYTES, STACK_BYTES))
        resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS + 1))
        resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY_BYTES, size + MEMORY_BYTES))
        result: dict[str, Any] = {}
        try:
            self._compile(kind, text)
        except Exception as error:
            if not hasattr(error, "reason"):
                raise
            result = {
                "reason": error.reason,
                "message_id": getattr(error, "message_id", ""),
                "parameters": getattr(error, "parameters", {}),
            }
        result["grown"] = max(0, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before)
        caller.sendall(json.dumps(result).encode() + b"\n")


def _read(caller: socket.socket) -> bytes:
    caller.settimeout(WALL_SECONDS)
    parts, size = [], 0
    while part := caller.recv(2**16):
        parts.append(part)
        size += len(part)
        if size > MAX_STRUCTURED_OUTPUT_BYTES:
            raise ValueError("the structured output is too long")
    return b"".join(parts)


def _memory() -> tuple[int, int]:
    """Return the bytes of address space, and of resident memory."""
    size, resident = Path("/proc/self/statm").read_text().split()[:2]
    return int(size) * resource.getpagesize(), int(resident) * resource.getpagesize()


if __name__ == "__main__":
    main()
