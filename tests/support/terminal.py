"""A pseudo-terminal for programs that tests start."""

from __future__ import annotations

import codecs
import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import termios
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

_ESCAPES: Final = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[()][A-Z0-9]")
SECONDS: Final = 40.0


class Terminal:
    """The terminal of a user."""

    def __init__(self, number: int) -> None:
        self._number = number
        # A character's bytes may be read one by one.
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self.output = ""
        """What was printed, with escape sequences."""

    @property
    def text(self) -> str:
        """What was printed, without escape sequences."""
        return _ESCAPES.sub("", self.output).replace("\r\n", "\n")

    def type(self, text: str) -> None:
        """Type; `\x03` is Ctrl-C, which the terminal turns into a signal."""
        os.write(self._number, text.encode())

    def wait_for(self, text: str, *, seconds: float = SECONDS) -> None:
        """Wait until a text was printed, which may contain escape sequences."""
        until = time.monotonic() + seconds
        while text not in self.output and text not in self.text:
            ready, _, _ = select.select([self._number], [], [], max(0, until - time.monotonic()))
            assert ready, f"{text!r} was not printed: {self.output!r}"
            try:
                self.output += self._decoder.decode(os.read(self._number, 4096))
            except OSError:
                raise AssertionError(f"the program ended without {text!r}: {self.output!r}") from None

    def read_past(self, text: str) -> None:
        """Wait until a text was printed, and drop it and everything before it."""
        while text not in self.output:
            self.wait_for(text)
            if text not in self.output:
                # Only without its escape sequences.
                self.output = self.text
        self.output = self.output.partition(text)[2]

    def read_rest(self) -> None:
        """Read what is left after the program has ended."""
        while select.select([self._number], [], [], 0)[0]:
            try:
                data = os.read(self._number, 4096)
            except OSError:
                return
            if not data:
                return
            self.output += self._decoder.decode(data)


@contextmanager
def on_terminal(
    argv: Sequence[str], *, directory: Path | None = None, size: tuple[int, int] = (24, 80)
) -> Iterator[tuple[Terminal, subprocess.Popen[bytes]]]:
    """Run a program as the leader of a session with a terminal of `size` lines and columns, and kill it at the end."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", *size, 0, 0))
    # Programs in a terminal handle Ctrl-C; tests in the background may inherit that SIGINT is ignored.
    process = subprocess.Popen(
        ["setsid", "--ctty", "--wait", "env", "--default-signal=INT", *argv],
        cwd=directory,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, "TERM": "xterm-256color"},
    )
    os.close(theirs)
    try:
        yield Terminal(ours), process
    finally:
        # Closing the terminal ends what runs in it.
        os.close(ours)
        try:
            process.wait(20)
        finally:
            process.kill()
            process.wait(10)
