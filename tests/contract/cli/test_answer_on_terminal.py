"""An answer on a terminal, while somebody types."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.support.terminal import on_terminal

_PROGRAM = r'''
import readline, sys
from pathlib import Path
from types import SimpleNamespace

from services.cli.answer_display import show_answer
from services.cli.conversation import Kind

class Conversation:
    """A conversation whose answer goes on until the file exists."""
    speed = "quickly"
    def ask(self, text, images):
        yield Kind.ANSWER, "It is **bold"
        while not Path(sys.argv[1]).exists():
            import time; time.sleep(0.01)
        yield Kind.ANSWER, "** now."

show_answer(Conversation(), "", ())
print("you typed", repr(input("> ")))
'''


def test_what_is_typed_meanwhile_waits_for_the_prompt(tmp_path: Path) -> None:
    go_on = tmp_path / "go-on"
    with on_terminal([sys.executable, "-c", _PROGRAM, str(go_on)]) as (screen, process):
        screen.wait_for("It is ")
        screen.wait_for("bold")
        screen.type("a word\n")
        go_on.touch()
        screen.wait_for("you typed 'a word'")
        assert process.wait(20) == 0
        answer, _, rest = screen.text.partition("quickly")
        assert "word" not in answer
        assert "*" not in answer
        assert "> " in rest
