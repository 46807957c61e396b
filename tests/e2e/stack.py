"""Stacks that `vilix up` runs."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from services.stack.ports import free_ports
from tests.support.repository import ROOT

VILIX = str(Path(sys.executable).with_name("vilix"))
START_SECONDS = 60
STOP_SECONDS = 60


@dataclass(frozen=True)
class RunningStack:
    """A stack that `vilix up` runs."""

    process: subprocess.Popen[str]
    directory: Path
    welcome: str

    @property
    def state(self) -> dict[str, Any]:
        return json.loads((self.directory / "state.json").read_text())  # type: ignore[no-any-return]

    @property
    def url(self) -> str:
        return str(self.state["url"])

    @property
    def api_key(self) -> str:
        return (self.directory / "api-key").read_text().strip()

    def vilix(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a `vilix` command against this stack."""
        return vilix(*arguments, "--state-dir", str(self.directory))

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Stop the stack and return its exit code."""
        self.process.send_signal(number)
        return self.process.wait(STOP_SECONDS)


def vilix(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a `vilix` command to its end."""
    return subprocess.run([VILIX, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)


@contextmanager
def up(directory: Path, *options: str, port: int | None = None) -> Iterator[RunningStack]:
    """Run a stack in `directory` with `options`. Unless they name a model, it serves the small one."""
    if "--model" not in options:
        options = ("--model", "smollm2-135m", *options)
    port = free_ports(1)[0] if port is None else port
    argv = [
        VILIX,
        "up",
        "--port",
        str(port),
        "--state-dir",
        str(directory),
        "--cache-dir",
        str(ROOT / ".cache"),
        *options,
    ]
    process = subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        yield RunningStack(process, directory, _read_welcome(process))
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        assert process.stdout is not None
        process.stdout.close()


def _read_welcome(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    lines: list[str] = []
    for line in process.stdout:
        lines.append(line)
        if "Ctrl-C stops everything" in line:
            return "".join(lines)
    raise AssertionError(f"the stack ended with {process.wait(10)}:\n{''.join(lines)}")


def is_alive(pid: int) -> bool:
    """Whether a process exists and is not a zombie."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False
