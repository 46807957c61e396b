"""Compare the vectors and the speed of the engines `trtllm` and `transformers` on a machine with a GPU.

`python -m bench.embeddings.gpu_smoke /models/Qwen3-Embedding-0.6B` needs torch and transformers, and for `trtllm`
TensorRT-LLM 1.3 or newer. An engine that cannot be loaded is reported and skipped.
"""

from __future__ import annotations

import importlib
import sys
import time
from pathlib import Path

import numpy as np

from bench.embeddings.texts import texts
from services.embeddings.tokenization import TokenizerTokenization

ENGINES = ("transformers", "trtllm")
LEAST_COSINE = 0.99
"""The least cosine similarity of the vectors of two engines in bfloat16."""


def main(directory: Path) -> int:
    """Compare the engines with the checkpoint in `directory`, and return the exit code."""
    tokenization = TokenizerTokenization(directory, end_token="<|endoftext|>")  # noqa: S106  # no secret
    rows = [np.frombuffer(row.payload, "<i4").tolist() for row in tokenization.rows("", texts(256), cut_at=None)]
    vectors = {}
    for name in ENGINES:
        try:
            module = importlib.import_module(f"services.embeddings.triton_backend.engines.{name}")
            engine = module.create({"model": str(directory)})
        except (ImportError, ValueError) as error:
            print(f"{name}: skipped: {error}")
            continue
        engine.embed(rows[:64])
        began = time.perf_counter()
        parts = [engine.embed(rows[start : start + 64]) for start in range(0, len(rows), 64)]
        print(f"{name}: {len(rows) / (time.perf_counter() - began):.0f} texts/s, {engine.description}")
        vectors[name] = np.concatenate(parts)
        lengths = np.linalg.norm(vectors[name], axis=1)
        print(f"{name}: lengths {lengths.min():.4f} to {lengths.max():.4f}")
    if len(vectors) < len(ENGINES):
        return 1
    cosine = (vectors["transformers"] * vectors["trtllm"]).sum(axis=1).min()
    print(f"least cosine between the engines: {cosine:.5f} (at least {LEAST_COSINE} is expected)")
    return 0 if cosine >= LEAST_COSINE else 1


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
