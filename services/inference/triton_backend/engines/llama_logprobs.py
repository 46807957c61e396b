"""Log probabilities of llama.cpp's tokens."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Final

import numpy as np
import numpy.typing as npt

from services.inference.triton_backend.contract import Tokens
from services.inference.triton_backend.engines.llama_sequence import Sequence

_BLOCK: Final = 256


def with_logprobs(token_id: int, logits: npt.NDArray[np.float32], logprobs: int | None) -> Tokens:
    """Return a token with `logprobs` most probable ones (see Params).

    Probabilities are those of the model itself, before penalties, temperature and structured output.
    """
    if logprobs is None:
        return Tokens([token_id])
    peak = float(logits.max())
    norm = peak + float(np.log(np.exp(logits - peak).sum(dtype=np.float64)))
    own = [float(logits[token_id]) - norm]
    if not logprobs:
        return Tokens([token_id], own)
    best = _largest(logits, logprobs)
    return Tokens([token_id], own, [[(int(i), float(logits[i]) - norm) for i in best]])


def note_prompt(sequence: Sequence, first: int, rows: Iterable[npt.NDArray[np.float32]]) -> None:
    """Note the log probabilities of the prompt's tokens behind those from the index `first` on, with logits `rows`."""
    prompt, wanted = sequence.prompt.tokens, sequence.request.params.prompt_logprobs
    if not first:
        sequence.prompt_logprobs.append(Tokens(prompt[:1], [0.0], [[]] if wanted else None))
    for index, logits in enumerate(rows, first + 1):
        if index < len(prompt):
            sequence.prompt_logprobs.append(with_logprobs(prompt[index], logits, wanted))


def take_prompt(sequence: Sequence, tokens: Tokens) -> Tokens:
    """Return `tokens`, the first time with the noted log probabilities of the prompt."""
    noted, sequence.prompt_logprobs = sequence.prompt_logprobs, []
    if not noted:
        return tokens
    prompt = Tokens(
        [token_id for one in noted for token_id in one.token_ids],
        [value for one in noted for value in one.logprobs or ()],
        [entry for one in noted for entry in one.top or ()] if noted[0].top is not None else None,
    )
    return replace(tokens, prompt=prompt)


def _largest(logits: npt.NDArray[np.float32], count: int) -> npt.NDArray[np.intp]:
    """Return the indices of the `count` largest logits, the largest first.

    They are searched in the blocks with the largest maxima, which is ten times faster than to partition all logits.
    """
    blocks = np.arange(0, len(logits), _BLOCK)
    maxima = np.maximum.reduceat(logits, blocks)
    if len(blocks) > count:
        blocks = blocks[np.argpartition(maxima, -count)[-count:]]
    indices = (blocks[:, None] + np.arange(_BLOCK)).ravel()
    indices = indices[indices < len(logits)]
    order = np.argsort(-logits[indices], kind="stable")
    best: npt.NDArray[np.intp] = indices[order[:count]]
    return best
