"""Unit tests start no process: one that does fails."""

from __future__ import annotations

import sys
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any, Final

import pytest

_STARTS: Final = {"os.fork", "os.forkpty", "os.posix_spawn", "os.spawn", "os.system", "subprocess.Popen"}
"""Python's audit events for the start of a process."""
_running: list[str] = []
"""The unit test that runs, if any; tests of other layers may run in this process too."""


def _audit(event: str, arguments: tuple[object, ...]) -> None:
    if _running and event in _STARTS:
        raise RuntimeError(f"{_running[-1]} starts a process ({event} {arguments[:1]}), which unit tests do not")


sys.addaudithook(_audit)


@contextmanager
def _without_processes(item: pytest.Item) -> Iterator[None]:
    _running.append(item.nodeid)
    try:
        yield
    finally:
        _running.pop()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, Any, Any]:
    """Let no fixture start a process."""
    with _without_processes(item):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, Any, Any]:
    """Let no test start a process."""
    with _without_processes(item):
        return (yield)
