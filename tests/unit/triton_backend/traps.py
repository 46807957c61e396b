"""Traps: surprising behaviour of TensorRT-LLM whose workaround can be removed, so that a test must fail."""

from __future__ import annotations

import inspect
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest

from services.inference.triton_backend.engines import (
    trtllm,
    trtllm_api,
    trtllm_inputs,
    trtllm_jobs,
    trtllm_probe,
    trtllm_processes,
    trtllm_rejections,
    trtllm_result,
    trtllm_statistics,
    trtllm_watchdog,
)
from services.worker.triton_kit.request_error import RequestError
from tests.support import trtllm_engine
from tests.support.trtllm_engine import Bench

OLD, NEW = "1.2.1", "1.3.0rc29"
PENALTIES = {"frequency_penalty", "presence_penalty", "repetition_penalty"}
ENTRY = {
    trtllm: "create",
    trtllm_api: "TrtllmApi",
    trtllm_probe: "Probe",
    trtllm_processes: "ranks",
    trtllm_rejections: "Rejections",
    trtllm_result: "ResultReader",
    trtllm_statistics: "Statistics",
    trtllm_watchdog: "Watchdog",
}
"""What the engine uses of each module that has traps."""
USERS = (trtllm, trtllm_inputs, trtllm_jobs)


@dataclass(frozen=True)
class Trap:
    """A surprising behaviour, the lines of its workaround, their replacement, and the test that fails then."""

    name: str
    version: str
    module: ModuleType
    lines: str
    without: str
    test: Callable[[Bench], object]


def with_patch(test: Callable[[Bench, pytest.MonkeyPatch], object], bench: Bench) -> None:
    with pytest.MonkeyPatch.context() as patch:
        test(bench, patch)


def with_file(test: Callable[[Bench, pytest.MonkeyPatch, Path], object], bench: Bench) -> None:
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as directory:
        test(bench, patch, Path(directory))


@contextmanager
def running(module: ModuleType, source: str) -> Iterator[None]:
    """Replace `module` by the code in `source` in the context."""
    before, entry = dict(vars(module)), ENTRY[module]
    with pytest.MonkeyPatch.context() as patch:
        try:
            # A name in angle brackets says that there is no file, which coverage would look for.
            exec(compile(source, f"<{module.__name__}>", "exec"), vars(module))  # noqa: S102  # it is our own
            for user in USERS:
                if hasattr(user, entry):
                    patch.setattr(user, entry, getattr(module, entry))
            yield
        finally:
            patch.undo()
            vars(module).update(before)


def catches(bench: Bench, trap: Trap) -> None:
    """Run a trap's test with its workaround, and assert that the test fails without it."""
    source = inspect.getsource(trap.module)
    assert source.count(trap.lines) == 1, "the engine has changed; change the trap's lines as well"
    with running(trap.module, source):
        trap.test(bench)
    with pytest.MonkeyPatch.context() as patch, running(trap.module, source.replace(trap.lines, trap.without)):
        # A test that fails by its time limit fails soon.
        patch.setattr(trtllm_engine, "SECONDS", 0.5)
        with pytest.raises((AssertionError, ValueError, RuntimeError, RequestError)):
            trap.test(bench)
        bench.close()
