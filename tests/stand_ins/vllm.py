"""A stand-in for the parts of vLLM that the engine uses, written after the sources of 0.32.0.

The first token of a prompt says what happens to the request: see the constants. All others get the tokens 10, 11, and
so on, one in each step, up to `max_tokens` or a stop token.
"""

from __future__ import annotations

import asyncio
import dataclasses
import sys
import types
from collections.abc import AsyncGenerator, Callable, Mapping
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest

from services.inference.triton_backend.engines.vllm_api import WARM_UP

REJECTED, MISTAKEN, FAILING, FATAL, SILENT, EARLY = 31, 32, 33, 34, 35, 36
VERSION = "0.32.0"


class EngineDeadError(Exception):
    """As vLLM's, it says nothing about the cause."""

    def __init__(self) -> None:
        super().__init__("EngineCore encountered an issue.")


class VLLMClientError(Exception):
    """An error of the caller."""


class EngineGenerateError(Exception):
    """The error that vLLM raises from an unexpected error of one request."""


class StatLoggerBase:
    """The base class of what receives statistics."""


class Parameters(SimpleNamespace):
    """SamplingParams and StructuredOutputsParams, which check nothing."""


@dataclasses.dataclass
class AsyncEngineArgs:
    """A few of the fields."""

    model: str
    max_model_len: int = 0
    max_num_seqs: int = 0
    max_logprobs: int = 20
    disable_log_stats: bool = False
    scheduling_policy: str = "fcfs"
    structured_outputs_config: dict[str, Any] = dataclasses.field(default_factory=dict)
    data_parallel_size: int = 1
    speculative_config: dict[str, Any] | None = None
    load_format: str = "auto"
    skip_tokenizer_init: bool = False


class Tokenizer:
    """A tokenizer of characters."""

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        assert not add_special_tokens
        return [ord(character) for character in text]


class AsyncLLM:
    """An engine that generates as quickly as its outputs are read, unless `going_on` holds it."""

    made: ClassVar[list[AsyncLLM]] = []

    def __init__(self, config: AsyncEngineArgs, stat_loggers: list[Callable[..., Any]]) -> None:
        if config.load_format == "broken":
            raise RuntimeError("Engine core initialization failed.\n\nSee root cause above.")
        self.config = config
        self.requests: list[SimpleNamespace] = []
        self.aborted: list[str] = []
        self.is_dead = False
        self.is_shut_down = False
        self.going_on = asyncio.Event()
        self.going_on.set()
        self.loggers = [make(None, 0) for make in stat_loggers]
        AsyncLLM.made.append(self)

    @classmethod
    def from_engine_args(cls, config: AsyncEngineArgs, *, stat_loggers: list[Callable[..., Any]]) -> AsyncLLM:
        asyncio.get_running_loop()
        return cls(config, stat_loggers)

    @property
    def renderer(self) -> None:
        return None

    def get_tokenizer(self) -> Tokenizer:
        return Tokenizer()

    async def check_health(self) -> None:
        if self.is_dead:
            raise EngineDeadError

    def shutdown(self, timeout: float) -> None:
        self.is_shut_down = timeout > 0

    def step(self, *, use: float = 0.25, asked: int = 0, found: int = 0) -> None:
        """Report a step."""
        cache = SimpleNamespace(queries=asked, hits=found)
        for logger in self.loggers:
            logger.record(SimpleNamespace(kv_cache_usage=use, prefix_cache_stats=cache), None, engine_idx=0)

    async def generate(
        self,
        prompt: dict[str, Any],
        parameters: Parameters,
        request_id: str,
        *,
        trace_headers: Mapping[str, str] | None = None,
        priority: int = 0,
    ) -> AsyncGenerator[Any, None]:
        if request_id == WARM_UP:
            return
        self.requests.append(
            SimpleNamespace(prompt=prompt, parameters=parameters, priority=priority, trace_headers=trace_headers)
        )
        ids = prompt["prompt_token_ids"]
        if ids[0] == REJECTED:
            raise VLLMClientError("this request\nis not valid")
        if ids[0] == MISTAKEN:
            raise EngineGenerateError from ValueError("a value is wrong")
        try:
            if ids[0] == SILENT:
                await asyncio.Event().wait()
            for number in range(parameters.max_tokens):
                await self.going_on.wait()
                await asyncio.sleep(0)
                self.step()
                if number == 1 and ids[0] == FAILING:
                    raise EngineGenerateError from RuntimeError("out of luck")
                if number == 1 and ids[0] == FATAL:
                    self.is_dead = True
                    raise EngineDeadError
                reason = self._reason(10 + number, number, ids, parameters)
                yield _output(ids, 10 + number, reason, parameters)
                if reason:
                    return
        except (asyncio.CancelledError, GeneratorExit):
            self.aborted.append(request_id)
            raise

    def _reason(self, token_id: int, number: int, ids: list[int], parameters: Parameters) -> str | None:
        if number == 1 and ids[0] == EARLY:
            return "abort"
        if token_id in parameters.stop_token_ids:
            return "stop"
        return "length" if number + 1 == parameters.max_tokens else None


def _output(ids: list[int], token_id: int, reason: str | None, parameters: Parameters) -> Any:
    rows = None
    if parameters.logprobs is not None:
        # vLLM has the chosen token first, and then the most probable ones.
        others = {token_id + 1 + rank: SimpleNamespace(logprob=-0.5 - rank) for rank in range(parameters.logprobs)}
        rows = [{token_id: SimpleNamespace(logprob=-1.0), **others}]
    prompt_rows = None
    if parameters.prompt_logprobs is not None:
        prompt_rows = [None, *({i: SimpleNamespace(logprob=-2.0)} for i in ids[1:])]
    completion = SimpleNamespace(token_ids=[token_id], logprobs=rows, finish_reason=reason)
    return SimpleNamespace(
        prompt_token_ids=ids,
        prompt_logprobs=prompt_rows,
        outputs=[completion],
        finished=reason is not None,
        num_cached_tokens=4,
    )


def install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the stand-in importable as vLLM."""
    contents: dict[str, dict[str, Any]] = {
        "vllm": {"__version__": VERSION},
        "vllm.sampling_params": {
            "SamplingParams": Parameters,
            "StructuredOutputsParams": Parameters,
            "RequestOutputKind": SimpleNamespace(DELTA="delta"),
        },
        "vllm.exceptions": {"VLLMClientError": VLLMClientError},
        "vllm.engine": {},
        "vllm.engine.arg_utils": {"AsyncEngineArgs": AsyncEngineArgs},
        "vllm.v1": {},
        "vllm.v1.engine": {},
        "vllm.v1.engine.async_llm": {"AsyncLLM": AsyncLLM},
        "vllm.v1.engine.exceptions": {"EngineDeadError": EngineDeadError},
        "vllm.v1.metrics": {},
        "vllm.v1.metrics.loggers": {"StatLoggerBase": StatLoggerBase},
    }
    for name, values in contents.items():
        module = types.ModuleType(name)
        module.__dict__.update(values)
        monkeypatch.setitem(sys.modules, name, module)
