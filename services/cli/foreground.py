"""Keeps a terminal's Ctrl-C from the program that started this one, such as `make`.

A terminal sends Ctrl-C to all processes of its foreground process group. `make` would then end with an error even if
the command that it runs has stopped cleanly.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def alone_in_foreground() -> Iterator[Callable[[], None]]:
    """Be the only process in the terminal's foreground, until the context ends.

    Yield a function that gives the terminal back at once, for an exit that leaves no context. Without a terminal, and
    in the background of one, nothing changes. Ctrl-Z has no effect meanwhile: the shell that waits for `make` would
    never learn that this process has stopped.
    """
    with contextlib.ExitStack() as stack:
        try:
            terminal = os.open("/dev/tty", os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            yield lambda: None
            return
        stack.callback(os.close, terminal)
        before = os.getpgrp()
        if before == os.getpid() or os.tcgetpgrp(terminal) != before:
            yield lambda: None
            return

        def give_back() -> None:
            with contextlib.suppress(OSError):
                os.tcsetpgrp(terminal, before)

        for number in (signal.SIGTSTP, signal.SIGTTOU):
            stack.callback(signal.signal, number, signal.signal(number, signal.SIG_IGN))
        os.setpgid(0, 0)
        os.tcsetpgrp(terminal, os.getpgrp())
        stack.callback(give_back)
        yield give_back
