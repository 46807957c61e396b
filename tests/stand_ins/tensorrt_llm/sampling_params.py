from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tensorrt_llm.version import since


@dataclass(slots=True, kw_only=True)
class GuidedDecodingParams:
    json: Any = None
    regex: str | None = None
    grammar: str | None = None
    json_object: bool = False
    structural_tag: str | None = None


@dataclass(slots=True, kw_only=True)
class SamplingParams:
    end_id: int | None = None
    pad_id: int | None = None
    max_tokens: int = 32
    stop: str | list[str] | None = None
    stop_token_ids: list[int] | None = None
    include_stop_str_in_output: bool = False
    embedding_bias: Any = None
    n: int = 1
    best_of: int | None = None
    top_k: int | None = None
    top_p: float | None = None
    seed: int | None = None
    temperature: float | None = None
    min_tokens: int | None = None
    repetition_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    min_p: float | None = None
    logprobs: int | None = None
    guided_decoding: GuidedDecodingParams | None = None
    ignore_eos: bool = False
    detokenize: bool = True
    add_special_tokens: bool = True
    skip_special_tokens: bool = True
    _stop_word_ids: list[list[int]] | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        self.best_of = self.best_of or self.n
        if self.best_of > 1 and self.is_greedy:
            raise ValueError("Greedy decoding in the LLM API does not allow multiple returns.")
        if self.top_k is not None and self.top_k < 0:
            raise ValueError(f"require top_k >= 0, got {self.top_k}")
        if self.seed is not None and not 0 <= self.seed < 2**64:
            raise TypeError("incompatible constructor arguments")
        if self.embedding_bias is not None and type(self.embedding_bias).__module__ != "torch":
            raise TypeError("embedding_bias must be a torch.Tensor")

    @property
    def is_greedy(self) -> bool:
        unset = self.temperature is None and self.top_p is None and self.top_k is None
        return unset or self.top_k == 1 or self.top_p == 0 or self.temperature == 0

    @property
    def returns_logprobs(self) -> bool:
        # Since rc26, 0 requests the log probability of the sampled token only; before, it requested none.
        return self.logprobs is not None if since("1.3.0rc26") else bool(self.logprobs)

    def set_up(self, tokenizer: Any) -> None:
        self.end_id = tokenizer.eos_token_id
        self.pad_id = self.end_id
        if self.stop is not None:
            self._stop_word_ids = [
                tokenizer.encode(s) for s in ([self.stop] if isinstance(self.stop, str) else self.stop)
            ]

    def stop_words(self) -> list[tuple[int | str, list[int]]]:
        words: list[tuple[int | str, list[int]]] = [(i, [i]) for i in self.stop_token_ids or ()]
        if self.stop is None:
            return words
        if self._stop_word_ids is None:
            raise RuntimeError(f"SamplingParams.stop ({self.stop}) is not processed by tokenizer")
        strings = [self.stop] if isinstance(self.stop, str) else self.stop
        return [*words, *zip(strings, self._stop_word_ids, strict=True)]
