"""The record of one request to vLLM."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import Any

from services.inference.triton_backend.contract import Request, Sink, Tokens, Usage
from services.inference.triton_backend.engines import vllm_output


@dataclass(slots=True, eq=False)
class Job:
    """One request. Times are on the monotonic clock, in seconds."""

    request: Request
    sink: Sink
    prompt: list[int]
    """The prompt's token ids, with one placeholder for each image."""
    limit: int
    """The most tokens to generate."""
    usage: Usage
    task: asyncio.Task[None] | None = None
    is_submitted: bool = False
    """Whether vLLM has the request."""
    pending: list[Tokens] = field(default_factory=list)
    """Tokens that were generated while the reader had no capacity."""
    generated: int = 0
    """The number of generated tokens; some may not have been passed on yet."""
    started: float = 0.0
    first_token: float | None = None
    ended: bool = False
    """Whether its sink has received the end."""

    @property
    def is_computed(self) -> bool:
        """Whether vLLM works on it, or has queued it."""
        return self.is_submitted and not self.ended

    def note(self, output: Any) -> int:
        """Note a new output of vLLM, and return how many tokens it has."""
        tokens = vllm_output.read(output, self.request.params, is_first=self.generated == 0)
        count = len(tokens.token_ids)
        if not count or self.ended:
            return 0
        if self.first_token is None:
            self.first_token = time.monotonic()
            self.usage.prompt_tokens = len(output.prompt_token_ids or self.prompt)
            self.usage.cached_tokens = tokens.cached_tokens or 0
        self.generated += count
        self.pending.append(tokens)
        return count

    def take(self) -> Tokens | None:
        """Return the noted tokens, and forget them. None if there are none."""
        noted, self.pending = self.pending, []
        return vllm_output.joined(noted) if noted else None

    def final_usage(self) -> Usage:
        """Return the usage at the end of the request."""
        now, usage = time.monotonic(), self.usage
        usage.completion_tokens = self.generated
        if self.first_token is not None:
            usage.prefill_s = self.first_token - self.started
            usage.decode_s = now - self.first_token
            usage.first_token_s = self.first_token - self.request.arrived
        return usage
