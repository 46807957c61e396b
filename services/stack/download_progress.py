"""The progress of a download as text: size, speed and time left."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final

WINDOW_SECONDS: Final = 10.0
"""The time over which the speed is measured."""


class DownloadStoppedError(Exception):
    """The download was stopped from outside. It can be continued."""


class DownloadProgress:
    """Turns the progress of a download into text; a `gguf_download.Watcher`. Used by the thread that downloads."""

    def __init__(
        self,
        show: Callable[[str], None],
        note: Callable[[str], None],
        *,
        every_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Call `show` with a text at most once in `every_seconds`, and `note` with each line about what happens."""
        self.note: Final = note
        self._show, self._every, self._clock = show, every_seconds, clock
        self._samples: deque[tuple[float, int]] = deque()
        self._shown_at: float | None = None
        self._is_complete = False
        self._stopped = threading.Event()

    def stop(self) -> None:
        """End the download at its next progress. May be called from another thread."""
        self._stopped.set()

    def progress(self, done: int, total: int) -> None:
        """Show that `done` of `total` bytes are there. Raises DownloadStoppedError after `stop`."""
        if self._stopped.is_set():
            raise DownloadStoppedError
        now = self._clock()
        self._samples.append((now, done))
        while now - self._samples[0][0] > WINDOW_SECONDS and len(self._samples) > 2:
            self._samples.popleft()
        was_complete, self._is_complete = self._is_complete, done >= total
        if was_complete and self._is_complete:
            # The download is being verified.
            return
        if self._shown_at is None or now - self._shown_at >= self._every or self._is_complete:
            self._shown_at = now
            self._show(self._text(done, total))

    def _text(self, done: int, total: int) -> str:
        text = f"{done / 1e6:,.0f} of {total / 1e6:,.0f} MB ({100 * done // max(total, 1)} %)"
        (began, first), (now, last) = self._samples[0], self._samples[-1]
        if now <= began or last <= first or done >= total:
            return text
        speed = (last - first) / (now - began)
        return f"{text}, {speed / 1e6:.1f} MB/s, {_duration((total - done) / speed)} left"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
