"""A loaded GGUF file: its vocabulary, and the context in which its sequences are decoded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from services.inference.triton_backend.engines.llama_api import LlamaApi
from services.inference.triton_backend.engines.llama_vision import LlamaVision, PreparedImage

MOST_SCORED: Final = 32
"""The most tokens of prompts in a step whose log probabilities are wanted: llama.cpp keeps the logits of each."""
PRE_TOKENIZERS: Final = ("smollm", "qwen2")
"""The pre-tokenizers for which the worker's token ids are known to equal llama.cpp's."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One token to decode."""

    token_id: int
    position: int
    sequence: int
    wants_logits: bool


class LlamaModel:
    """A loaded model with a context for `slots` sequences. Used by one thread at a time."""

    def __init__(
        self,
        api: LlamaApi,
        path: Path,
        *,
        context_length: int,
        slots: int,
        threads: int,
        most_entries: int,
    ) -> None:
        """Load the file at `path`. One decode has at most `most_entries`.

        Of those, one for each slot and MOST_SCORED others may want logits.

        Raises ValueError or OSError, whose message says what is wrong with the file.
        """
        if not path.is_file():
            raise FileNotFoundError(f"there is no model file {path}")
        self._api, self._lib, self._ffi = api, api.lib, api.ffi
        self._model = self._lib.llama_model_load_from_file(str(path).encode(), self._lib.llama_model_default_params())
        if self._model == self._ffi.NULL:
            raise ValueError(f"{path} cannot be loaded: {api.last_error() or 'llama.cpp gave no reason'}")
        self.vocab: Any = self._lib.llama_model_get_vocab(self._model)
        self.vocabulary: int = self._lib.llama_vocab_n_tokens(self.vocab)
        self._reject_unknown_tokenizer(path)
        self._reject_longer_context(path, context_length)
        self.end_ids = frozenset(i for i in range(self.vocabulary) if self._lib.llama_vocab_is_eog(self.vocab, i))
        self._most_entries = most_entries
        self._context = self._new_context(context_length, slots, threads)
        self._memory = self._lib.llama_get_memory(self._context)
        self._batch = self._lib.llama_batch_init(most_entries, 0, 1)

    def tokenize(self, text: str) -> list[int]:
        """Return the ids of a prompt; names of special tokens in it stand for those tokens."""
        raw = text.encode()
        add_begin = self._lib.llama_vocab_get_add_bos(self.vocab)
        size = len(raw) + 8
        ids = self._ffi.new("llama_token[]", size)
        count = self._lib.llama_tokenize(self.vocab, raw, len(raw), ids, size, add_begin, True)
        return list(ids[0:count])

    def token(self, name: str) -> int | None:
        """Return the id of a special token, or None if there is none with that name."""
        ids = self.tokenize(name)
        return ids[0] if len(ids) == 1 else None

    def decode(self, entries: list[Entry]) -> None:
        """Run the model over `entries`. Raises RuntimeError if that fails; the model cannot be used any more then."""
        if len(entries) > self._most_entries:
            raise RuntimeError(f"a step has {len(entries)} tokens, and there is memory for {self._most_entries}")
        batch = self._batch
        batch.n_tokens = len(entries)
        for i, entry in enumerate(entries):
            batch.token[i] = entry.token_id
            batch.pos[i] = entry.position
            batch.n_seq_id[i] = 1
            batch.seq_id[i][0] = entry.sequence
            batch.logits[i] = entry.wants_logits
        status = self._lib.llama_decode(self._context, batch)
        if status != 0:
            raise RuntimeError(f"llama_decode returned {status}: {self._api.last_error()}")

    def decode_image(self, image: PreparedImage, first: int, last: int, *, position: int, sequence: int) -> None:
        """Run the model over the tokens from `first` up to `last` (exclusive) of an image that begins at `position`.

        Raises RuntimeError as `decode` does.
        """
        count = last - first
        embeddings = np.ascontiguousarray(image.embeddings[first:last])
        # Time, row and column count from the beginning of the image; the fourth row is not used.
        positions = np.ascontiguousarray(image.positions[:, first:last])
        positions[:3] += position
        own_sequence = self._ffi.new("llama_seq_id[]", [sequence])
        batch = self._ffi.new("llama_batch *")
        batch.n_tokens = count
        batch.embd = self._ffi.from_buffer("float[]", embeddings)
        batch.pos = self._ffi.from_buffer("llama_pos[]", positions)
        batch.n_seq_id = counts = self._ffi.new("int32_t[]", [1] * count)
        batch.seq_id = sequences = self._ffi.new("llama_seq_id *[]", [own_sequence] * count)
        batch.logits = wanted = self._ffi.new("int8_t[]", count)
        status = self._lib.llama_decode(self._context, batch[0])
        del counts, sequences, wanted
        if status != 0:
            raise RuntimeError(f"llama_decode of an image returned {status}: {self._api.last_error()}")

    def open_vision(self, path: Path, *, threads: int) -> LlamaVision:
        """Load the model's vision projector. Raises ValueError or OSError, whose message is about the file."""
        width = self._lib.llama_model_n_embd_inp(self._model)
        return LlamaVision(self._api, path, model=self._model, width=width, threads=threads)

    def logits(self, index: int) -> npt.NDArray[np.float32]:
        """Return the logits after entry `index` of the last decode, one per token, valid until the next decode."""
        pointer = self._lib.llama_get_logits_ith(self._context, index)
        if pointer == self._ffi.NULL:
            raise RuntimeError(f"llama.cpp has no logits for entry {index}")
        return np.frombuffer(self._ffi.buffer(pointer, self.vocabulary * 4), np.float32)

    def keep(self, sequence: int, tokens: int) -> int:
        """Remove all but the first `tokens` tokens of a sequence, and return how many were kept."""
        if self._lib.llama_memory_seq_rm(self._memory, sequence, tokens, -1):
            return tokens
        self._lib.llama_memory_seq_rm(self._memory, sequence, -1, -1)
        return 0

    def copy(self, source: int, target: int, tokens: int) -> int:
        """Replace a sequence by the first `tokens` tokens of another one, and return how many it has then."""
        self._lib.llama_memory_seq_rm(self._memory, target, -1, -1)
        # Each sequence has a memory of its own, which can only be copied as a whole.
        self._lib.llama_memory_seq_cp(self._memory, source, target, -1, -1)
        return self.keep(target, tokens)

    def close(self) -> None:
        """Free the context.

        Weights and vocabulary stay in memory: llguidance remembers the last vocabulary by its address, and would take
        another model's vocabulary at the same address for it.
        """
        self._lib.llama_batch_free(self._batch)
        self._lib.llama_free(self._context)

    def _new_context(self, context_length: int, slots: int, threads: int) -> Any:
        params = self._lib.llama_context_default_params()
        params.n_ctx = context_length * slots
        params.n_seq_max = slots
        params.n_batch = params.n_ubatch = self._most_entries
        params.n_outputs_max = slots + MOST_SCORED
        params.n_threads = params.n_threads_batch = threads
        context = self._lib.llama_init_from_model(self._model, params)
        if context == self._ffi.NULL:
            raise ValueError(
                f"no context of {slots} x {context_length} tokens: {self._api.last_error() or 'not enough memory?'}"
            )
        return context

    def _reject_unknown_tokenizer(self, path: Path) -> None:
        name = self._metadata("tokenizer.ggml.pre")
        if name not in PRE_TOKENIZERS:
            raise ValueError(f"{path} has the pre-tokenizer {name!r}; supported are {', '.join(PRE_TOKENIZERS)}")

    def _reject_longer_context(self, path: Path, context_length: int) -> None:
        trained = self._lib.llama_model_n_ctx_train(self._model)
        if context_length > trained:
            raise ValueError(
                f"context_length={context_length} is more than the {trained} tokens that {path} was trained for"
            )

    def _metadata(self, key: str) -> str:
        buffer = self._ffi.new("char[]", 256)
        length = self._lib.llama_model_meta_val_str(self._model, key.encode(), buffer, 256)
        return "" if length < 0 else str(self._ffi.string(buffer).decode(errors="replace"))
