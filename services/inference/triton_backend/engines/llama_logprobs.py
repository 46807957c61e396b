"""Log probabilities of llama.cpp's tokens."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from services.inference.triton_backend.contract import Tokens


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
    best = np.argpartition(logits, -logprobs)[-logprobs:]
    best = best[np.argsort(-logits[best])]
    return Tokens([token_id], own, [[(int(i), float(logits[i]) - norm) for i in best]])
