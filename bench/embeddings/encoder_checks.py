"""Checks of an embeddings engine on a machine with a GPU: its vectors, its memory and its speed."""

from __future__ import annotations

import asyncio
import functools
import importlib
import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench import triton_server
from bench.embeddings import random_encoder
from bench.embeddings.texts import texts
from services.embeddings import model_repository
from services.embeddings.tokenization import TokenizerTokenization

Vectors = NDArray[np.float32]
ROWS, LONGEST, COMPARED = 256, 600, 8
BATCHES = (1, 8, 64, 256)
MEASURED_TOKENS = 128
MEASURED_SECONDS = 2.0
LOAD_SECONDS = 200
MODEL = "smoke"
LEAST_COSINE = 0.99
"""The least cosine of a vector in bfloat16 and the same in float32, or computed in another batch."""
TOO_MANY = 2**22
"""More tokens at once than a GPU has memory for."""


class Subject:
    """An engine, and rows of token ids of mixed lengths for it."""

    def __init__(self, directory: Path, engine: str) -> None:
        self._directory = directory
        self._name = engine
        self._engine: Any = None
        self.rows = _rows(directory)

    def make(self, **arguments: Any) -> Any:
        """Return an engine of its own with further arguments."""
        module = importlib.import_module(f"services.embeddings.triton_backend.engines.{self._name}")
        return module.create({"model": str(self._directory), **arguments})

    def bare_model(self) -> Any:
        """Return the model as transformers loads it, in the type and on the device that the engine chooses."""
        import torch  # noqa: PLC0415 - only machines with a GPU have it
        import transformers  # noqa: PLC0415 - as above

        has_gpu = torch.cuda.is_available()
        dtype = "auto" if has_gpu else "float32"
        loaded = transformers.AutoModel.from_pretrained(self._directory, dtype=dtype, local_files_only=True)
        return loaded.to("cuda" if has_gpu else "cpu").eval()

    def load(self) -> dict[str, Any]:
        """Load the engine, and return its description. Raises ImportError or ValueError if that is not possible."""
        began = time.perf_counter()
        self._engine = self.make()
        description = self._engine.description
        return {
            "version": description.version,
            "dimensions": description.dimensions,
            "load_s": round(time.perf_counter() - began, 1),
            **_gpu_memory(),
        }

    def embed(self, rows: Sequence[Sequence[int]], size: int = 64) -> Vectors:
        """Return the vectors of rows, computed in batches of `size`."""
        parts = [self._engine.embed(rows[start : start + size]) for start in range(0, len(rows), size)]
        return np.concatenate(parts)

    def write_model(self, repository: Path, model_id: str) -> None:
        """Write the model into a repository of Triton."""
        model_repository.write_model(
            repository,
            model_id=model_id,
            engine=self._name,
            engine_args={"model": str(self._directory)},
            max_batch_size=64,
            on_gpu=_has_gpu(),
        )

    @property
    def is_on_torch(self) -> bool:
        """True for an engine that takes the device and the type of its numbers as arguments."""
        return self._name == "transformers"

    @property
    def longest(self) -> int:
        """The most tokens of one text."""
        return int(self._engine.description.max_input_tokens)


def _rows(directory: Path) -> list[list[int]]:
    """Return rows of mixed lengths, of texts if the checkpoint has a tokenizer."""
    chosen = random.Random(1)  # noqa: S311  # no secret
    if (directory / "tokenizer.json").exists():
        tokenization = TokenizerTokenization(directory, end_token="<|endoftext|>")  # noqa: S106  # no secret
        joined = [" ".join(texts(chosen.randint(1, 30), seed=seed)) for seed in range(ROWS)]
        return [np.frombuffer(row.payload, "<i4").tolist() for row in tokenization.rows("", joined, cut_at=None)]
    lengths = [round(LONGEST ** chosen.random()) for _ in range(ROWS)]
    return [[*(chosen.randrange(100_000) for _ in range(length)), random_encoder.END] for length in lengths]


def vectors(subject: Subject) -> dict[str, Any]:
    """Check that vectors are finite, have the length 1, and differ."""
    found = subject.embed(subject.rows)
    lengths = np.linalg.norm(found, axis=1)
    assert np.isfinite(found).all(), "a vector is not finite"
    assert abs(lengths - 1).max() < 1e-3, f"lengths {lengths.min():.4f} to {lengths.max():.4f}"
    between = found @ found.T - np.eye(len(found), dtype=np.float32) * 2
    return {"rows": len(found), "most_alike": round(float(between.max()), 5)}


def precision(subject: Subject) -> dict[str, Any]:
    """Check vectors against those of the CPU in float32."""
    if not subject.is_on_torch:
        return {"skipped": "only transformers runs on both"}
    rows = sorted(subject.rows, key=len)[:: len(subject.rows) // COMPARED][:COMPARED]
    exact = subject.make(device="cpu", dtype="float32").embed(rows)
    return _alike(subject.embed(rows), exact)


def batches(subject: Subject) -> dict[str, Any]:
    """Check that a row has the same vector alone as in a batch of mixed lengths."""
    rows = subject.rows[:64]
    return _alike(subject.embed(rows, 1), subject.embed(rows, 64))


def longest(subject: Subject) -> dict[str, Any]:
    """Check that the longest text fits, alone and beside short ones."""
    rows = [_long_row(subject.longest), *subject.rows[:63]]
    _forget_peak()
    began = time.perf_counter()
    alone = subject.embed(rows[:1])
    seconds, memory = time.perf_counter() - began, _gpu_memory()
    beside = subject.embed(rows)
    assert np.isfinite(beside).all(), "a vector is not finite"
    figures = {"tokens": subject.longest, "alone_s": round(seconds, 2), "peak_gib": memory.get("peak_gib")}
    return figures | {"beside_63_peak_gib": _gpu_memory().get("peak_gib")} | _alike(alone, beside[:1])


def memory(subject: Subject) -> dict[str, Any]:
    """Check that a batch for which the GPU has no memory is an error, and that the engine goes on after it."""
    if not subject.is_on_torch or not _has_gpu():
        return {"skipped": "there is no memory of a GPU to fill"}
    import torch  # noqa: PLC0415 - only machines with a GPU have it

    engine = subject.make(batch_tokens=TOO_MANY)
    before = engine.embed(subject.rows[:8])
    free = torch.cuda.mem_get_info()[0]
    # The rest of the memory belongs to others, as on a GPU that several models share.
    taken = torch.empty(max(0, free - 2**30), dtype=torch.uint8, device="cuda")
    try:
        engine.embed([_long_row(subject.longest)] * 16)
    except RuntimeError as error:
        message = f"{type(error).__name__}: {str(error).splitlines()[0][:120]}"
    else:
        raise AssertionError("it was not too much")
    assert engine.description.dimensions == before.shape[1]
    figures = {"error": message} | _alike(before, engine.embed(subject.rows[:8]))
    del taken
    return figures


def bare(subject: Subject) -> dict[str, Any]:
    """Measure what the engine costs: batches of 64 texts, beside the same in transformers without the engine."""
    if not subject.is_on_torch:
        return {"skipped": "it is not transformers"}
    import torch  # noqa: PLC0415 - only machines with a GPU have it

    model = subject.bare_model()
    rows = [_long_row(MEASURED_TOKENS, seed) for seed in range(64)]

    def embed() -> Vectors:
        ids = torch.tensor(rows, device=model.device)
        with torch.inference_mode():
            states = model(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state[:, -1].float()
            return np.asarray(torch.nn.functional.normalize(states, dim=1).cpu())

    figures = _alike(embed(), subject.embed(rows))
    for name, measured in (("bare", embed), ("engine", lambda: subject.embed(rows)), ("bare_again", embed)):
        figures[f"{name}_texts_per_s"] = round(_rate(measured, len(rows)))
    return figures


def speed(subject: Subject) -> dict[str, Any]:
    """Measure texts of MEASURED_TOKENS tokens in batches of several sizes."""
    figures: dict[str, Any] = {}
    for size in BATCHES:
        rows = [_long_row(MEASURED_TOKENS, seed) for seed in range(size)]
        subject.embed(rows, size)
        _forget_peak()
        rate = _rate(functools.partial(subject.embed, rows, size), size)
        figures[f"batch_{size}"] = {
            "texts_per_s": round(rate),
            "tokens_per_s": round(rate * MEASURED_TOKENS),
            **_gpu_memory(),
        }
    return figures


def served(subject: Subject) -> dict[str, Any]:
    """Check the vectors of the model in Triton, and measure requests of 64 texts that arrive at the same time."""
    from services.worker.triton_client import TritonClient  # noqa: PLC0415 - it needs gRPC, which an image may lack

    def write(repository: Path) -> None:
        subject.write_model(repository, MODEL)

    async def embed(client: TritonClient, rows: Sequence[Sequence[int]]) -> Vectors:
        columns = {"token_ids": [np.array(row, "<i4").tobytes() for row in rows]}
        answer = await client.infer(MODEL, columns, request_id="smoke", seconds=LOAD_SECONDS)
        return np.frombuffer(answer["embedding"].raw, "<f4").reshape(answer["embedding"].shape)

    async def measure(target: str) -> dict[str, Any]:
        client = TritonClient(target)
        found = await asyncio.gather(*(embed(client, subject.rows[start : start + 8]) for start in range(0, ROWS, 8)))
        figures = _alike(np.concatenate(found), subject.embed(subject.rows))
        rows = [_long_row(MEASURED_TOKENS, seed) for seed in range(64)]
        count, began = 0, time.perf_counter()
        while time.perf_counter() - began < MEASURED_SECONDS:
            await asyncio.gather(*(embed(client, rows) for _ in range(4)))
            count += 4 * len(rows)
        rate = count / (time.perf_counter() - began)
        await client.close()
        return figures | {"texts_per_s": round(rate), "tokens_per_s": round(rate * MEASURED_TOKENS)}

    began = time.perf_counter()
    with triton_server.serving(write, LOAD_SECONDS) as target:
        loaded = round(time.perf_counter() - began, 1)
        return {"ready_s": loaded, **asyncio.run(measure(target))}


def _rate(work: Callable[[], object], texts: int) -> float:
    """Return the texts per second of work on `texts`, which is repeated for a while."""
    count, began = 0, time.perf_counter()
    while time.perf_counter() - began < MEASURED_SECONDS:
        work()
        count += texts
    return count / (time.perf_counter() - began)


def _long_row(tokens: int, seed: int = 3) -> list[int]:
    chosen = random.Random(seed)  # noqa: S311  # no secret
    return [*(chosen.randrange(100_000) for _ in range(tokens - 1)), random_encoder.END]


def _alike(one: Vectors, other: Vectors) -> dict[str, Any]:
    """Return the least cosine of rows that must be the same. Raises AssertionError if they are not."""
    cosine = float((one * other).sum(axis=1).min())
    assert cosine >= LEAST_COSINE, f"the least cosine is {cosine:.5f}"
    if len(one) > 1:
        nearest = (one @ other.T).argmax(axis=1)
        assert (nearest == np.arange(len(one))).all(), f"the nearest vectors are {nearest.tolist()}"
    return {"least_cosine": round(cosine, 5)}


def _has_gpu() -> bool:
    import torch  # noqa: PLC0415 - only machines with a GPU have it

    return bool(torch.cuda.is_available())


def _forget_peak() -> None:
    if _has_gpu():
        import torch  # noqa: PLC0415 - as above

        torch.cuda.reset_peak_memory_stats()


def _gpu_memory() -> dict[str, Any]:
    """Return the memory that PyTorch has allocated on the GPU, now and at most."""
    if not _has_gpu():
        return {}
    import torch  # noqa: PLC0415 - as above

    now, most = torch.cuda.memory_allocated(), torch.cuda.max_memory_allocated()
    return {"gib": round(now / 2**30, 2), "peak_gib": round(most / 2**30, 2)}


CHECKS: dict[str, Callable[[Subject], dict[str, Any]]] = {
    "vectors": vectors,
    "batches": batches,
    "precision": precision,
    "longest": longest,
    "memory": memory,
    "speed": speed,
    "bare": bare,
    "served": served,
}
