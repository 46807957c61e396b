"""The record of one request to TensorRT-LLM."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, replace
from typing import Any

from services.inference.triton_backend.contract import Request, Sink, Tokens, Usage
from services.inference.triton_backend.engines.trtllm_result import ResultReader


@dataclass(slots=True, eq=False)
class Job:
    """One request. Times are on the monotonic clock, in seconds."""

    request: Request
    sink: Sink
    limit: int
    """The most tokens to generate."""
    usage: Usage
    reader: ResultReader
    task: asyncio.Task[None] | None = None
    preparing: asyncio.Future[Any] | None = None
    """The preparation of its images, in a thread."""
    result: Any = None
    output: Any = None
    deadline: asyncio.Timeout | None = None
    """The timeout of reading the result, which is set when the request is aborted."""
    generated: int = 0
    """The number of tokens that TensorRT-LLM has generated; some may not have been passed on yet."""
    started: float = 0.0
    first_token: float | None = None
    ended: bool = False
    """Whether its sink has received the end."""

    @property
    def is_computed(self) -> bool:
        """Whether TensorRT-LLM works on it, or has queued it."""
        return self.result is not None and not self.ended

    def count(self, generated: int) -> int:
        """Note that `generated` tokens exist in all, and return how many of them are new."""
        if generated <= self.generated or self.ended:
            return 0
        self.first_token = self.first_token or time.monotonic()
        new, self.generated = generated - self.generated, generated
        return new

    def take(self, *, final: bool) -> Tokens:
        """Return the tokens since the last call. Raises RequestError if the engine has ended the request early."""
        tokens = self.reader.take(self.output, final=final)
        if tokens.token_ids and self.reader.taken == len(tokens.token_ids):
            tokens = replace(tokens, cached_tokens=getattr(self.result, "cached_tokens", None))
        return tokens

    def final_usage(self) -> Usage:
        """Return the usage at the end of the request."""
        now, usage = time.monotonic(), self.usage
        usage.completion_tokens = self.reader.taken
        usage.cached_tokens = getattr(self.result, "cached_tokens", 0) or 0
        if self.first_token is not None:
            usage.prefill_s = self.first_token - self.started
            usage.decode_s = now - self.first_token
            usage.first_token_s = self.first_token - self.request.arrived
        return usage
