"""The output of `vilix up` while the stack starts, runs and stops: a live list on a terminal, else plain lines."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from rich.console import Console
from rich.markup import escape
from rich.progress import Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from services.stack.download_progress import DownloadProgress

TERMINAL_SECONDS: Final = 0.2
PLAIN_SECONDS: Final = 5.0
"""The time between two texts about the progress of a download, on a terminal and elsewhere."""


class Display:
    """The progress of the stack's steps and processes, on a console; a `supervisor.Watcher`."""

    def __init__(self, console: Console) -> None:
        """Write to `console`."""
        self._console = console
        self._progress: Progress | None = None
        self._tasks: dict[str, TaskID] = {}

    @contextmanager
    def starting_up(self) -> Iterator[None]:
        """Show a line with the elapsed time for each step and process, until the context ends."""
        if not self._console.is_terminal:
            yield
            return
        columns = (SpinnerColumn(finished_text="[green]✓"), TextColumn("{task.description}"), TimeElapsedColumn())
        with Progress(*columns, console=self._console) as progress:
            self._progress = progress
            try:
                yield
            finally:
                self._progress = None
                for task in progress.tasks:
                    if not task.finished:
                        progress.remove_task(task.id)

    @contextmanager
    def step(self, description: str) -> Iterator[None]:
        """Show a step that takes a while."""
        self._begin(description)
        yield
        self._finish(description, description)

    @contextmanager
    def download(self, description: str) -> Iterator[DownloadProgress]:
        """Show a step that may download a file, and yield what the download reports its progress to."""
        self._begin(description)

        def show(text: str) -> None:
            if self._progress is not None:
                self._progress.update(self._tasks[description], description=f"{description}: {text}")
            else:
                self._line(f"  {text}")

        seconds = TERMINAL_SECONDS if self._progress is not None else PLAIN_SECONDS
        yield DownloadProgress(show, lambda text: self._line(f"  {escape(text)}"), every_seconds=seconds)
        self._finish(description, description)

    def note(self, text: str) -> None:
        """Show a line about what was decided."""
        self._line(f"· {escape(text)}")

    def warn(self, text: str) -> None:
        """Show a line about what may be a mistake."""
        self._line(f"[yellow]! {escape(text)}")

    def starting(self, name: str, pid: int) -> None:
        """Show that a process was started."""
        self._begin(name)

    def ready(self, name: str, seconds: float) -> None:
        """Show that a process is ready."""
        self._finish(name, f"{name} is ready ({seconds:.1f} s)")

    def died(self, name: str, exit_code: int, restart_in: float) -> None:
        """Show that a process ended and will be restarted."""
        self._line(f"[yellow]! {name} ended with exit code {exit_code}; restarting it in {restart_in:g} s")

    def unhealthy(self, name: str, why: str) -> None:
        """Show that a process is unhealthy."""
        self._line(f"[yellow]! {name} does not work any more: {escape(why)}")

    def stopping(self, name: str) -> None:
        """Show that a process was asked to stop."""
        self._line(f"· stopping {name}")

    def _begin(self, name: str) -> None:
        if self._progress is not None:
            self._tasks[name] = self._progress.add_task(name, total=1)
        else:
            self._line(f"… {name}")

    def _finish(self, name: str, text: str) -> None:
        if self._progress is not None:
            self._progress.update(self._tasks[name], completed=1)
        else:
            self._line(f"[green]✓[/] {text}")

    def _line(self, text: str) -> None:
        self._console.print(text, highlight=False, soft_wrap=True)
