"""The slots of llama.cpp's KV cache, which keep what they have read for later prompts with the same beginning."""

from __future__ import annotations

import time
from typing import Final

from services.inference.triton_backend.engines.llama_model import LlamaModel
from services.inference.triton_backend.engines.llama_sequence import Sequence, Slot, common_prefix


class Slots:
    """The slots of one model. Used by one thread."""

    def __init__(self, model: LlamaModel, count: int) -> None:
        """Create `count` free slots."""
        self._model: Final = model
        self._free: Final = [Slot(number) for number in range(count)]

    @property
    def has_free(self) -> bool:
        """Whether a slot is free."""
        return bool(self._free)

    def assign(self, sequence: Sequence) -> None:
        """Give a sequence the free slot with the longest part of its prompt, or else the one unused for longest.

        A request that asks for repeatability, by a seed or temperature 0, reads its whole prompt.
        """
        params, prompt = sequence.request.params, sequence.prompt.tokens
        reusable = {slot.number: 0 for slot in self._free}
        if params.seed is None and params.temperature > 0:
            for slot in self._free:
                if slot.salt == params.cache_salt:
                    reusable[slot.number] = common_prefix(slot.tokens, prompt)
        slot = max(self._free, key=lambda slot: (reusable[slot.number], -slot.used))
        self._free.remove(slot)
        kept = self._model.keep(slot.number, min(reusable[slot.number], sequence.reusable))
        slot.tokens, slot.salt = prompt[:kept], params.cache_salt
        sequence.slot, sequence.usage.cached_tokens = slot, kept

    def release(self, slot: Slot) -> None:
        """Free a slot."""
        slot.used = time.monotonic()
        self._free.append(slot)
