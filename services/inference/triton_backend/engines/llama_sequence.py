"""A request in llama.cpp's batch, and the slot of the KV cache into which it is read."""

from __future__ import annotations

from dataclasses import dataclass, field

from services.inference.triton_backend.contract import Request, Sink, Tokens, Usage
from services.inference.triton_backend.engines.llama_prompt import LlamaPrompt
from services.inference.triton_backend.engines.llama_sampler import Sampler
from services.worker.triton_kit.request_error import RequestError


@dataclass(slots=True)
class Slot:
    """A slot of the KV cache."""

    number: int
    tokens: list[int] = field(default_factory=list)
    """The tokens that were read into it, in order."""
    salt: str = ""
    """The cache salt of the last request."""
    used: float = 0.0
    """When the last request has left it, on the monotonic clock in seconds."""


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
    """The number of its first tokens that a slot may have read before."""
    is_ready: bool = True
    """Whether its images, if any, are encoded."""
    problem: RequestError | None = None
    """The error of its structured output or its images."""
    trial_began: float | None = None
    """When the trial of its structured output began, on the monotonic clock in seconds."""
    is_over: bool = False
    """Whether it has ended while its structured output was being compiled."""
    slot: Slot | None = None
    prompt_logprobs: list[Tokens] = field(default_factory=list)
    """The prompt's tokens that were read, if their log probabilities are wanted."""
    next_token: int | None = None
    """The token that was chosen, but not read yet; None while the prompt is being read."""
    generated: int = 0
    started: float = 0.0
    first_token: float | None = None

    def can_go_on(self) -> bool:
        """Return whether it takes part in the next step."""
        return self.is_ready and self.sink.has_capacity()

    @property
    def wants_prompt_logprobs(self) -> bool:
        """Whether the log probabilities of the prompt's tokens are wanted."""
        return self.request.params.prompt_logprobs is not None


def common_prefix(one: list[int], other: list[int]) -> int:
    """Return the length of the common beginning of two lists."""
    for i, (a, b) in enumerate(zip(one, other, strict=False)):
        if a != b:
            return i
    return min(len(one), len(other))
