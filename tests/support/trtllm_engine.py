"""The engine trtllm with the stand-in for TensorRT-LLM, in this process."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from services.inference.triton_backend.contract import Params, Request, Tokens, Usage
from services.inference.triton_backend.engines import trtllm
from services.inference.triton_backend.params_parser import parse
from services.worker.triton_kit.request_error import RequestError
from tests.stand_ins import trtllm as stand_in
from tests.support.waits import block_until

SECONDS = 20
"""The time limit of waits for events that must happen."""


class Reader:
    """A sink that collects all outputs of a request."""

    def __init__(self) -> None:
        self.batches: list[Tokens] = []
        self.reason: str | None = None
        self.usage = Usage()
        self.error: RequestError | None = None
        self.is_behind = False
        self.cancelled = False
        self.progress = 0
        self._first = threading.Event()
        self._ended = threading.Event()

    def has_capacity(self) -> bool:
        return not self.is_behind

    def is_cancelled(self) -> bool:
        return self.cancelled

    def note_progress(self) -> None:
        self.progress += 1

    def emit(self, tokens: Tokens) -> None:
        assert not self._ended.is_set()
        self.batches.append(tokens)
        self._first.set()

    def finish(self, finish_reason: str, usage: Usage, last: Tokens | None = None) -> None:
        assert not self._ended.is_set()
        self.batches += [last] if last else []
        self.reason, self.usage = finish_reason, usage
        self._ended.set()

    def fail(self, error: RequestError) -> None:
        assert not self._ended.is_set()
        self.error = error
        self._ended.set()

    def wait_for_tokens(self) -> None:
        assert self._first.wait(SECONDS)

    def wait(self) -> Reader:
        assert self._ended.wait(SECONDS)
        return self

    @property
    def has_ended(self) -> bool:
        return self._ended.is_set()

    @property
    def token_ids(self) -> list[int]:
        return [token_id for batch in self.batches for token_id in batch.token_ids]

    @property
    def logprobs(self) -> list[float]:
        return [value for batch in self.batches for value in batch.logprobs or ()]

    @property
    def top(self) -> list[list[tuple[int, float]]]:
        return [pairs for batch in self.batches for pairs in batch.top or ()]


class Bench:
    """Creates engines, and gives access to the stand-in."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._engines: list[trtllm.TrtllmEngine] = []

    def engine(
        self,
        responses: Sequence[Mapping[str, Any]] = ({"token_ids": [10, 11, 12]},),
        *,
        architecture: str = stand_in.QWEN3,
        **arguments: Any,
    ) -> trtllm.TrtllmEngine:
        model = stand_in.write_checkpoint(self._directory / "model", responses, architecture=architecture, step_ms=1)
        engine = trtllm.create({"model": str(model), "context_length": 256, "slots": 2, **arguments})
        self._engines.append(engine)
        return engine

    def ask(self, prompt: list[int], engine: trtllm.TrtllmEngine | None = None, **params: Any) -> Reader:
        reader = Reader()
        (engine or self._engines[-1]).submit(Request(read(params), prompt), reader)
        return reader

    @property
    def last(self) -> trtllm.TrtllmEngine:
        """The engine that was created last."""
        return self._engines[-1]

    @property
    def llm(self) -> Any:
        """The stand-in's LLM that was created last."""
        return sys.modules["tensorrt_llm"].LLM.made[-1]

    def close(self) -> None:
        """Close all engines."""
        while self._engines:
            self._engines.pop().close()


def read(params: Mapping[str, Any]) -> Params:
    parsed = parse(json.dumps(dict(params)))
    assert isinstance(parsed, Params)
    return parsed


def forget_stand_in() -> None:
    for name in [n for n in sys.modules if n.split(".")[0] in ("tensorrt_llm", "torch")]:
        del sys.modules[name]


def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition for as long as a reader waits for its request."""
    block_until(condition, SECONDS)


@contextmanager
def running_bench(directory: Path, packages: Path) -> Iterator[Bench]:
    """A bench in this process; its engines are closed at the end.

    Args:
        directory: The directory to which the engines' models are written.
        packages: The directory in which the stand-in for a version of TensorRT-LLM is installed.
    """
    forget_stand_in()
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(packages)
        made = Bench(directory)
        try:
            yield made
        finally:
            made.close()
            forget_stand_in()
