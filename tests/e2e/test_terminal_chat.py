"""`vilix chat` on a terminal and with pipes."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from services.stack.ports import free_ports
from tests.e2e.stack import VILIX, RunningStack, up
from tests.support.terminal import Terminal, on_terminal

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


def terminal(stack: RunningStack, *arguments: str) -> AbstractContextManager[tuple[Terminal, subprocess.Popen[bytes]]]:
    return on_terminal([VILIX, "chat", *arguments, "--state-dir", str(stack.directory)])


def test_piped_input_is_sent_as_one_message(stack: RunningStack) -> None:
    answer = piped(stack, "What is the capital of France?", MODEL, "--max-tokens", "40")
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.strip()
    assert "\x1b" not in answer.stdout


def test_the_default_is_the_first_available_model(stack: RunningStack) -> None:
    assert piped(stack, "Hello!", "--max-tokens", "3").returncode == 0


def test_ctrl_d_ends_a_conversation(stack: RunningStack) -> None:
    with terminal(stack, MODEL, "--max-tokens", "30") as (screen, process):
        for question in ("What is the capital of France?", "And of Italy?"):
            screen.read_past(PROMPT)
            screen.type(f"{question}\n")
            screen.read_past(END)
        # Before the prompt, the terminal takes the character for the end of a line.
        screen.read_past(PROMPT)
        screen.type("\x04")
        assert process.wait(20) == 0


def test_commands_change_the_conversation(stack: RunningStack) -> None:
    with terminal(stack, "--max-tokens", "10") as (screen, process):
        screen.wait_for("/help lists the commands")
        for command, reply in (
            ("/help", "forget the conversation"),
            ("/model", f"* {MODEL}"),
            ("/model nobody", f"available are {MODEL}"),
            ("/system Answer in one word.", "The system prompt is set."),
            ("/system", "Answer in one word."),
            ("/image /missing.png", "cannot be read"),
            ("/nothing", "no command /nothing"),
        ):
            screen.wait_for(PROMPT)
            screen.output = ""
            screen.type(f"{command}\n")
            screen.wait_for(reply)
        screen.wait_for(PROMPT)
        screen.type('"""What is\nthe capital of France?"""\n')
        screen.wait_for("tokens/s")
        assert "first token after" in screen.text
        screen.type("/clear\n")
        screen.wait_for("The conversation is forgotten.")
        screen.type("/exit\n")
        assert process.wait(20) == 0


@pytest.fixture
def thinking(tmp_path: Path) -> Iterator[RunningStack]:
    with up(tmp_path, "--demo-thinking") as running:
        yield running


def test_reasoning_is_dim_and_the_answer_is_not(thinking: RunningStack) -> None:
    with terminal(thinking, THINKING) as (screen, process):
        screen.wait_for(PROMPT)
        screen.output = ""
        screen.type("Hello!\n")
        screen.wait_for(END)
        reasoning, answer = screen.output.split(DIM, 1)[1].split("\r\n\r\n" + BEGIN, 1)
        assert reasoning.strip()
        assert "\x1b" not in reasoning
        assert answer.split(END)[0].strip()
        assert DIM not in answer.split(END)[0]
        assert process.poll() is None
    # Piped output has no colours.
    assert "\x1b" not in piped(thinking, "Hello!", THINKING).stdout


def test_ctrl_c_stops_the_response_but_not_the_chat(stack: RunningStack) -> None:
    with terminal(stack, MODEL) as (screen, process):
        screen.wait_for(PROMPT)
        # A small model may end its response before it can be stopped.
        for _ in range(8):
            screen.output = ""
            screen.type("Tell me a very long story of a king and his three daughters.\n")
            screen.wait_for(BEGIN)
            screen.type("\x03")
            screen.wait_for(PROMPT)
            if "stopped" in screen.output:
                break
        assert "stopped" in screen.output
        assert process.poll() is None


@pytest.mark.parametrize(
    ("arguments", "variables", "problem"),
    [
        (["nobody"], {}, "'nobody'"),
        ([MODEL], {"VILIX_API_KEY": "wrong"}, "401"),
        ([MODEL, "--url", f"http://127.0.0.1:{free_ports(1)[0]}/api"], {}, "cannot be reached"),
    ],
)
def test_an_error_is_reported_in_one_line(
    stack: RunningStack, arguments: list[str], variables: dict[str, str], problem: str
) -> None:
    answer = piped(stack, "Hello!", *arguments, **variables)
    assert answer.returncode == 1
    assert answer.stderr.startswith("error: ")
    assert problem in answer.stderr
    assert answer.stderr.count("\n") == 1
