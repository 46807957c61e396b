"""Plans the steps of llama.cpp: the tokens that each running sequence reads next, within a time for prompts.

A large part of a prompt is read faster than many small ones: on one AVX2 thread, a model of 0.5 billion parameters
reads 34 tokens per CPU second in parts of 8, 41 in parts of 32, and 50 in parts of 64 and more. But a step cannot be
interrupted, and nobody gets a token during it. So the duration of a step is limited, and not its number of tokens: it
may be longer while no request generates, because only cancellations and new requests wait then.

Small parts cost most behind a long prompt, whose keys and values are read again for each part: the third thousand of
tokens takes 17 seconds in parts of 64, and 35 in parts of 32. While no request generates, parts are never smaller, so
that a slow machine does not become slower with each step.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from services.inference.triton_backend.engines.llama_model import MOST_SCORED, Entry
from services.inference.triton_backend.engines.llama_prompt import PlacedImage
from services.inference.triton_backend.engines.llama_sequence import Sequence, Slot

PREFILL_MOST: Final = 512
"""The most prompt tokens in a step."""
PREFILL_LEAST: Final = 16
"""The fewest prompt tokens in a step while other requests generate, however slow the machine is."""
PREFILL_LEAST_ALONE: Final = 64
"""The fewest prompt tokens in a step while no request generates."""
PREFILL_REPEATABLE: Final = 32
"""The tokens in a part of a prompt whose request has a seed: logits depend on how a prompt was split."""
PREFILL_SECONDS: Final = 0.15
"""The time for prompts in a step while other requests generate: their next tokens come so much later."""
PREFILL_SECONDS_ALONE: Final = 0.8
"""The time for prompts in a step while no request generates."""


@dataclass(frozen=True, slots=True)
class TextRead:
    """Tokens that a sequence reads in a step."""

    sequence: Sequence
    slot: Slot
    token_ids: list[int]

    @property
    def scores_prompt(self) -> bool:
        """Whether the tokens are of a prompt whose log probabilities are wanted."""
        return self.sequence.next_token is None and self.sequence.wants_prompt_logprobs

    def entries(self) -> Iterator[Entry]:
        """Append the tokens to the slot, and yield their entries.

        Logits are wanted after the last token, unless a part of the prompt is left, and for log probabilities of the
        prompt after each.
        """
        first = len(self.slot.tokens)
        self.slot.tokens.extend(self.token_ids)
        last = len(self.slot.tokens) - 1
        wants_logits = last + 1 >= len(self.sequence.prompt)
        for index, token_id in enumerate(self.token_ids, first):
            position = self.sequence.prompt.position(index)
            yield Entry(token_id, position, self.slot.number, self.scores_prompt or (wants_logits and index == last))


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
    generates: bool = False
    """Whether a sequence in it generates."""


class StepPlanner:
    """Plans steps, and adapts the number of prompt tokens per step to the speed of the machine."""

    def __init__(self) -> None:
        """Start with small steps."""
        self._token_seconds = PREFILL_SECONDS / PREFILL_LEAST
        """An estimate of the time that one prompt token takes."""
        self._generate_seconds = 0.0
        """The duration of the last step without prompts, which others take in addition to the prompts' time."""

    def plan(self, running: list[Sequence]) -> Step:
        """Return the next step of the sequences."""
        step = Step()
        active = [(sequence, sequence.slot) for sequence in running if sequence.slot and sequence.can_go_on()]
        for sequence, slot in active:
            if sequence.next_token is not None:
                step.texts.append(TextRead(sequence, slot, [sequence.next_token]))
                step.generates = True
        reading = [(sequence, slot) for sequence, slot in active if sequence.next_token is None]
        budget = self._budget(step.generates)
        with_logprobs_left = MOST_SCORED
        for sequence, slot, share in _shares(reading, budget):
            most = share
            if sequence.wants_prompt_logprobs:
                most = min(share, with_logprobs_left)
                with_logprobs_left -= most
                if most:
                    step.prompt_tokens += _add_read(step, sequence, slot, most)
                continue
            if sequence.request.params.seed is not None:
                most = PREFILL_REPEATABLE
                if step.prompt_tokens and step.prompt_tokens + most > budget:
                    continue
            step.prompt_tokens += _add_read(step, sequence, slot, most)
        return step

    def note(self, step: Step, seconds: float) -> None:
        """Adapt the estimates to a step that took `seconds`."""
        if not step.prompt_tokens:
            self._generate_seconds = seconds
            return
        others = min(self._generate_seconds, seconds * 3 / 4) if step.generates else 0.0
        # The mean of the new and the earlier value: one disturbed step must not change much.
        self._token_seconds = (self._token_seconds + (seconds - others) / step.prompt_tokens) / 2

    def _budget(self, others_generate: bool) -> int:
        """Return the most prompt tokens of the next step."""
        seconds = PREFILL_SECONDS if others_generate else PREFILL_SECONDS_ALONE
        least = PREFILL_LEAST if others_generate else PREFILL_LEAST_ALONE
        return max(least, min(PREFILL_MOST, int(seconds / self._token_seconds)))


def _add_read(step: Step, sequence: Sequence, slot: Slot, most: int) -> int:
    """Add the next read of a prompt, and return its number of tokens."""
    done = len(slot.tokens)
    if placed := sequence.prompt.image_at(done):
        count = min(placed.end - done, most)
        step.images.append(ImageRead(sequence, slot, placed, count))
        return count
    token_ids = sequence.prompt.text_at(done, most)
    step.texts.append(TextRead(sequence, slot, token_ids))
    return len(token_ids)


def _shares(reading: list[tuple[Sequence, Slot]], budget: int) -> Iterator[tuple[Sequence, Slot, int]]:
    """Divide the budget among the sequences that read, and yield the most tokens of each.

    The oldest ones come first, but the one with the shortest rest gets up to half of the budget: otherwise a short
    prompt would wait for all long ones before it.
    """
    if not reading:
        return
    rests = [len(sequence.prompt) - len(slot.tokens) for sequence, slot in reading]
    shares = [0] * len(reading)
    shortest = rests.index(min(rests))
    left = budget
    for index, most in ((shortest, budget // 2), *((index, budget) for index in range(len(reading)))):
        count = min(rests[index] - shares[index], most, left)
        shares[index] += count
        left -= count
    for (sequence, slot), share in zip(reading, shares, strict=True):
        if share:
            yield sequence, slot, share
