"""`vilix chat`, as a person and as a program runs it."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from services.stack.ports import free_ports
from tests.e2e.stack import VILIX, RunningStack, up

MODEL = "smollm2-135m"
PROMPT = "› "
THINKING = "replay-thinking"
DIM = "\x1b[2m"
BEGIN, END = "\x1b[0m", "\x1b[0m\r\n"


def piped(stack: RunningStack, text: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [VILIX, "chat", *arguments, "--state-dir", str(stack.directory)],
        input=text,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


class Terminal:
    """What a person sees and types."""

    def __init__(self, number: int) -> None:
        self._number = number
        self.seen = ""

    def type(self, text: str) -> None:
        os.write(self._number, text.encode())

    def wait_for(self, text: str, *, seconds: float = 40) -> None:
        until = time.monotonic() + seconds
        while text not in self.seen:
            ready, _, _ = select.select([self._number], [], [], until - time.monotonic())
            assert ready, f"{text!r} did not come: {self.seen!r}"
            self.seen += os.read(self._number, 4096).decode(errors="replace")


@contextmanager
def terminal(stack: RunningStack, *arguments: str) -> Iterator[tuple[Terminal, subprocess.Popen[bytes]]]:
    ours, theirs = pty.openpty()
    # A person's terminal lets programs hear of Ctrl-C; who starts tests in the background does not.
    argv = ["env", "--default-signal=INT", VILIX, "chat", *arguments, "--state-dir", str(stack.directory)]
    process = subprocess.Popen(argv, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    try:
        yield Terminal(ours), process
    finally:
        process.kill()
        process.wait(10)
        os.close(ours)


def test_what_is_piped_in_is_answered(stack: RunningStack) -> None:
    answer = piped(stack, "What is the capital of France?", MODEL, "--max-tokens", "40")
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.strip()
    assert "\x1b" not in answer.stdout


def test_the_first_model_is_taken_unless_one_is_given(stack: RunningStack) -> None:
    assert piped(stack, "Hello!", "--max-tokens", "3").returncode == 0


def test_a_conversation_goes_on_until_ctrl_d(stack: RunningStack) -> None:
    with terminal(stack, MODEL, "--max-tokens", "30") as (screen, process):
        screen.wait_for(PROMPT)
        screen.type("What is the capital of France?\n")
        screen.wait_for(END)
        screen.seen = ""
        screen.wait_for(PROMPT)
        screen.type("And of Italy?\n")
        screen.wait_for(END)
        screen.type("\x04")
        assert process.wait(20) == 0


@pytest.fixture
def thinking(tmp_path: Path) -> Iterator[RunningStack]:
    with up(tmp_path, "--demo-thinking") as running:
        yield running


def test_a_reasoning_is_dim_and_the_answer_is_not(thinking: RunningStack) -> None:
    with terminal(thinking, THINKING) as (screen, process):
        screen.wait_for(PROMPT)
        screen.seen = ""
        screen.type("Hello!\n")
        screen.wait_for(END)
        reasoning, answer = screen.seen.split(DIM, 1)[1].split("\r\n\r\n" + BEGIN, 1)
        assert reasoning.strip()
        assert "\x1b" not in reasoning
        assert answer.split(END)[0].strip()
        assert DIM not in answer.split(END)[0]
        assert process.poll() is None
    # Whoever pipes the answer on wants no colours in it.
    assert "\x1b" not in piped(thinking, "Hello!", THINKING).stdout


def test_ctrl_c_stops_the_answer_and_not_the_chat(stack: RunningStack) -> None:
    with terminal(stack, MODEL) as (screen, process):
        screen.wait_for(PROMPT)
        # A small model may end its answer before it can be stopped.
        for _ in range(8):
            screen.seen = ""
            screen.type("Tell me a very long story of a king and his three daughters.\n")
            screen.wait_for(BEGIN)
            process.send_signal(signal.SIGINT)
            screen.wait_for(PROMPT)
            if "stopped" in screen.seen:
                break
        assert "stopped" in screen.seen
        assert process.poll() is None


@pytest.mark.parametrize(
    ("arguments", "variables", "problem"),
    [
        (["nobody"], {}, "'nobody'"),
        ([MODEL], {"VILIX_API_KEY": "wrong"}, "401"),
        ([MODEL, "--url", f"http://127.0.0.1:{free_ports(1)[0]}/api"], {}, "cannot be reached"),
    ],
)
def test_what_is_wrong_is_one_line(
    stack: RunningStack, arguments: list[str], variables: dict[str, str], problem: str
) -> None:
    answer = piped(stack, "Hello!", *arguments, **variables)
    assert answer.returncode == 1
    assert answer.stderr.startswith("error: ")
    assert problem in answer.stderr
    assert answer.stderr.count("\n") == 1
