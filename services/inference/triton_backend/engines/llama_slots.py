"""The slots of llama.cpp's KV cache, which keep what they have read for later prompts with the same beginning."""

from __future__ import annotations

import time
from typing import Final

from services.inference.triton_backend.engines.llama_model import LlamaModel
from services.inference.triton_backend.engines.llama_sequence import Sequence, Slot, common_prefix

LEAST_REUSED: Final = 64
"""The fewest tokens that are reused.

Fewer are read fast, and then results do not depend on what was read before. Reading so many takes longer than copying a
whole slot.
"""


class Slots:
    """The slots of one model. Used by one thread."""

    def __init__(self, model: LlamaModel, count: int) -> None:
        """Create `count` free slots."""
        self._model: Final = model
        self._all: Final = [Slot(number) for number in range(count)]
        self._free: Final = list(self._all)

    @property
    def has_free(self) -> bool:
        """Whether a slot is free."""
        return bool(self._free)

    def assign(self, sequence: Sequence) -> None:
        """Give a sequence a free slot with the longest part of its prompt that any slot of its cache salt has read.

        A request that asks for repeatability by a seed, or for log probabilities of the prompt, reads its whole prompt.
        """
        params, prompt = sequence.request.params, sequence.prompt.tokens
        reads_all = params.seed is not None or sequence.wants_prompt_logprobs
        source, shared = (None, 0) if reads_all else self._longest_prefix(sequence)
        slot = min(self._free, key=lambda free: free.used)
        if source in self._free and source is not None and len(source.tokens) <= 2 * shared:
            # What it loses is less than what it keeps: it is the same conversation.
            slot = source
        if source is None or slot is source:
            kept = self._model.keep(slot.number, shared)
        else:
            kept = self._model.copy(source.number, slot.number, shared)
        self._free.remove(slot)
        slot.tokens, slot.salt = prompt[:kept], params.cache_salt
        sequence.slot, sequence.usage.cached_tokens = slot, kept

    def _longest_prefix(self, sequence: Sequence) -> tuple[Slot | None, int]:
        """Return the slot that shares most tokens with the beginning of the prompt, and their number."""
        salt, prompt = sequence.request.params.cache_salt, sequence.prompt.tokens[: sequence.reusable]
        shared = [(common_prefix(slot.tokens, prompt), slot) for slot in self._all if slot.salt == salt]
        longest, slot = max(shared, key=lambda pair: pair[0], default=(0, None))
        return (slot, longest) if longest >= LEAST_REUSED else (None, 0)

    def release(self, slot: Slot) -> None:
        """Free a slot."""
        slot.used = time.monotonic()
        self._free.append(slot)
