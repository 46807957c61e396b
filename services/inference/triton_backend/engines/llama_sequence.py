"""A request in llama.cpp's batch, and the place in the KV cache that it is read into."""

from __future__ import annotations

from dataclasses import dataclass, field

from services.inference.triton_backend.contract import Request, Sink, Usage
from services.inference.triton_backend.engines.llama_prompt import LlamaPrompt
from services.inference.triton_backend.engines.llama_sampler import Sampler
from services.worker.triton_kit.request_error import RequestError


@dataclass(slots=True)
class Slot:
    """A place in the KV cache."""

    number: int
    tokens: list[int] = field(default_factory=list)
    """What was read into it, in order."""
    salt: str = ""
    used: float = 0.0


@dataclass(slots=True)
class Sequence:
    """One request."""

    request: Request
    sink: Sink
    sampler: Sampler
    limit: int
    usage: Usage
    prompt: LlamaPrompt
    reusable: int
    """How many of its first tokens may come from what a slot has read before."""
    is_ready: bool = True
    """Whether its images have been looked at, if it has any."""
    problem: RequestError | None = None
    """With its guide or its images."""
    trial_began: float | None = None
    """When the trial of its guide began."""
    is_over: bool = False
    """Whether its sink was told the end while its guide was still being made."""
    slot: Slot | None = None
    next_token: int | None = None
    """Chosen, but not read yet; None while the prompt is being read."""
    generated: int = 0
    started: float = 0.0
    first_token: float | None = None

    def can_go_on(self) -> bool:
        """Whether it has something to do in the next step."""
        return self.is_ready and self.sink.has_capacity()


def common_prefix(one: list[int], other: list[int]) -> int:
    """How many of their first tokens are the same."""
    for i, (a, b) in enumerate(zip(one, other, strict=False)):
        if a != b:
            return i
    return min(len(one), len(other))
