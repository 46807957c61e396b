"""Plans the steps of llama.cpp: the tokens that each running sequence reads next, within a budget for prompts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from services.inference.triton_backend.engines.llama_model import Entry
from services.inference.triton_backend.engines.llama_prompt import PlacedImage
from services.inference.triton_backend.engines.llama_sequence import Sequence, Slot

PREFILL_BESIDE_OTHERS: Final = 32
"""The most prompt tokens in a step while other requests run, which must not be slowed down."""
PREFILL_ALONE: Final = 512
"""The most prompt tokens in a step of a single request."""
PREFILL_LEAST: Final = 8
STEP_SECONDS: Final = 0.08
"""The longest duration of a step that reads prompts, so that tokens and cancellations are handled in between."""


@dataclass(frozen=True, slots=True)
class TextRead:
    """Tokens that a sequence reads in a step."""

    sequence: Sequence
    slot: Slot
    token_ids: list[int]

    def entries(self) -> Iterator[Entry]:
        """Append the tokens to the slot, and yield their entries.

        Logits are wanted after the last token, unless a part of the prompt is left.
        """
        first = len(self.slot.tokens)
        self.slot.tokens.extend(self.token_ids)
        last = len(self.slot.tokens) - 1
        wants_logits = last + 1 >= len(self.sequence.prompt)
        for index, token_id in enumerate(self.token_ids, first):
            position = self.sequence.prompt.position(index)
            yield Entry(token_id, position, self.slot.number, wants_logits and index == last)


@dataclass(frozen=True, slots=True)
class ImageRead:
    """A part of an image that a sequence reads in a step."""

    sequence: Sequence
    slot: Slot
    placed: PlacedImage
    count: int
    """The number of the image's tokens."""


@dataclass(slots=True)
class Step:
    """The reads of one step."""

    texts: list[TextRead] = field(default_factory=list)
    images: list[ImageRead] = field(default_factory=list)
    prompt_tokens: int = 0
    """The number of prompt tokens, those of images included."""


class StepPlanner:
    """Plans steps, and adapts the number of prompt tokens per step to the speed of the machine."""

    def __init__(self) -> None:
        """Start with a small budget."""
        self._budget = PREFILL_BESIDE_OTHERS

    def plan(self, running: list[Sequence]) -> Step:
        """Return the next step of the sequences, the oldest request first."""
        step = Step()
        budget = min(self._budget, PREFILL_BESIDE_OTHERS if len(running) > 1 else PREFILL_ALONE)
        for sequence in running:
            slot = sequence.slot
            if slot is None or not sequence.can_go_on():
                continue
            done = len(slot.tokens)
            if sequence.next_token is not None:
                step.texts.append(TextRead(sequence, slot, [sequence.next_token]))
            elif step.prompt_tokens >= budget:
                continue
            elif placed := sequence.prompt.image_at(done):
                count = min(placed.end - done, budget - step.prompt_tokens)
                step.prompt_tokens += count
                step.images.append(ImageRead(sequence, slot, placed, count))
            else:
                token_ids = sequence.prompt.text_at(done, budget - step.prompt_tokens)
                step.prompt_tokens += len(token_ids)
                step.texts.append(TextRead(sequence, slot, token_ids))
        return step

    def note(self, step: Step, seconds: float) -> None:
        """Adapt the budget to a step that took `seconds`."""
        if not step.prompt_tokens:
            return
        if seconds > STEP_SECONDS:
            self._budget = max(PREFILL_LEAST, int(step.prompt_tokens * STEP_SECONDS / seconds))
        elif step.prompt_tokens == self._budget:
            self._budget = min(PREFILL_ALONE, step.prompt_tokens * 5 // 4)
