"""Ctrl-C for a program that `make` runs."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.support.repository import ROOT
from tests.support.terminal import on_terminal

PROGRAM = """\
import signal, sys, time
sys.path.insert(0, {root!r})
from services.cli.foreground import alone_in_foreground
asked = []
with alone_in_foreground():
    signal.signal(signal.SIGINT, lambda *_: asked.append(print("stopping", flush=True)))
    print("running", flush=True)
    while not asked:
        time.sleep(0.01)
    print("stopped", flush=True)
"""


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "program.py").write_text(PROGRAM.format(root=str(ROOT)))
    (tmp_path / "Makefile").write_text(f"run:\n\t@{sys.executable} program.py\n")
    return tmp_path


def test_ctrl_c_stops_the_program_cleanly_and_make_reports_success(directory: Path) -> None:
    after = "echo made; read answer; echo got $answer"
    with on_terminal(["sh", "-c", f"make run && {after}"], directory=directory) as (screen, process):
        screen.wait_for("running")
        screen.type("\x1a")  # Ctrl-Z would leave make waiting for a stopped program.
        screen.type("\x03")
        screen.wait_for("stopped")
        # The shell gets its terminal back.
        screen.wait_for("made")
        screen.type("yes\n")
        screen.wait_for("got yes")
        assert process.wait(20) == 0
        screen.read_rest()
        assert screen.text.count("stopping") == 1
        assert "Error" not in screen.text
        assert "***" not in screen.text


def test_a_program_without_make_is_stopped_as_well(directory: Path) -> None:
    with on_terminal([sys.executable, "program.py"], directory=directory) as (screen, process):
        screen.wait_for("running")
        screen.type("\x03")
        screen.wait_for("stopped")
        assert process.wait(20) == 0
