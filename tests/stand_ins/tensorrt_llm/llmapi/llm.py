from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
from torch import Tensor

from tensorrt_llm import usage
from tensorrt_llm._torch.models.modeling_utils import MODEL_CLASS_MAPPING
from tensorrt_llm.executor.blocks import Blocks, IterationResult
from tensorrt_llm.executor.engine import Engine, Running, Script
from tensorrt_llm.executor.result import RequestOutput
from tensorrt_llm.executor.utils import RequestError
from tensorrt_llm.llmapi.llm_args import TorchLlmArgs
from tensorrt_llm.sampling_params import SamplingParams
from tensorrt_llm.version import since

PENALTIES = {"repetition_penalty", "presence_penalty", "frequency_penalty"}
IMAGE_FACTOR = 28
GPUS = 8
CACHED_TOKENS = 1024


@dataclass(frozen=True, slots=True)
class PreprocessedInputs:
    prompt_token_ids: list[int]
    inputs: dict[str, Any]


class Executor:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        if os.environ.get("TLLM_WORKER_USE_SINGLE_PROCESS") == "1":
            # Otherwise it is in another process.
            self.engine = engine

    def is_shutdown(self) -> bool:
        return self._engine.dead


class Tokenizer:
    """A tokenizer: the id of a character is its code point; the model directory lists the special tokens."""

    def __init__(self, *, eos_token_id: int, special_tokens: dict[str, int]) -> None:
        self.eos_token_id = eos_token_id
        self._special = special_tokens

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        ids = []
        while text:
            special = next((name for name in self._special if text.startswith(name)), None)
            ids.append(self._special[special] if special else ord(text[0]))
            text = text[len(special or " ") :]
        return ids

    def apply_chat_template(self, messages: list[dict[str, Any]], **_: Any) -> str:
        parts = [m["content"] if isinstance(m["content"], list) else [{"text": m["content"]}] for m in messages]
        return "".join(part.get("text", "<|image_pad|>") for content in parts for part in content)

    def decode(self, ids: list[int], skip_special_tokens: bool = False) -> str:
        names = {token_id: "" if skip_special_tokens else name for name, token_id in self._special.items()}
        return "".join(names.get(i, chr(i)) for i in ids)


class BaseLLM:
    made: ClassVar[list[BaseLLM]] = []
    """All instances, for tests."""

    def __init__(self, model: str, **kwargs: Any) -> None:
        for key in kwargs:
            if key not in TorchLlmArgs.model_fields:
                raise ValueError(f"LLM got invalid argument: {key}")
        self.args = TorchLlmArgs(model=model, **kwargs)
        if self.args.sampler_type == "TRTLLMSampler" and since("1.3.0rc26"):
            raise ValueError("TRTLLMSampler has been removed")
        ranks = self.args.tensor_parallel_size * self.args.pipeline_parallel_size
        if ranks > GPUS:
            raise RuntimeError(f"Only {GPUS} GPUs are available, but {ranks} are required.")
        if ranks > 1:
            _start_ranks()
        usage.report()
        directory = Path(model)
        self._config = json.loads((directory / "config.json").read_text())
        if self._config["architectures"][0] not in MODEL_CLASS_MAPPING:
            raise RuntimeError("Executor worker returned error")
        self._stand_in = json.loads((directory / "stand_in.json").read_text())
        self.tokenizer = Tokenizer(
            eos_token_id=self._stand_in["eos_token_id"], special_tokens=self._stand_in.get("special_tokens", {})
        )
        self.requests: list[tuple[dict[str, Any], SamplingParams, dict[str, Any]]] = []
        """The arguments of generate_async before it changed them, for tests."""
        self.made.append(self)
        self.background_error: Exception | None = None
        """An error of another thread, which the next call raises after it has stopped the engine."""
        self.engine = Engine(
            # With attention data parallelism, each rank has requests and a cache of its own.
            slots=self.args.max_batch_size * (ranks if self.args.enable_attention_dp else 1),
            step_seconds=self._stand_in.get("step_ms", 5) / 1000,
            stream_interval=self.args.stream_interval,
            honours=self._honours(),
            flat_logprobs=self.args.sampler_type == "TRTLLMSampler",
            blocks=Blocks(
                total=CACHED_TOKENS // Blocks.TOKENS,
                reuse=self.args.kv_cache_config.enable_block_reuse,
                records=self.args.enable_iter_perf_stats,
            ),
        )
        self._executor = Executor(self.engine)
        self._iterations = IterationResult(self.engine.blocks)

    def shutdown(self) -> None:
        self.engine.stop()

    def _honours(self) -> frozenset[str]:
        other_sampler = self.args.sampler_type == "TRTLLMSampler"
        return frozenset(
            (PENALTIES | {"min_p"} if since("1.3.0rc24") or other_sampler else set())
            | ({"seed"} if since("1.3.0rc26") or other_sampler else set())
        )

    def get_stats_async(self, timeout: float | None = 2) -> Any:
        if not self.requests:
            # Reading them before the first request warns on stderr, each time.
            print("Iteration statistics are not available yet.", file=sys.stderr)
        self._iterations.set_timeout(timeout or 0)
        return self._iterations

    def _start(self, inputs: Any, params: SamplingParams, *, streaming: bool, **rest: Any) -> RequestOutput:
        if self.background_error is not None:
            self.engine.stop()
            raise self.background_error
        if self.engine.dead:
            raise RuntimeError("LLM is shutting down")
        assert streaming
        preprocessed = inputs if isinstance(inputs, PreprocessedInputs) else None
        inputs = preprocessed.inputs if preprocessed else inputs
        inputs = {"prompt_token_ids": inputs} if isinstance(inputs, list) else dict(inputs)
        self.requests.append((inputs, params, rest))
        if params.end_id is None:
            params.set_up(self.tokenizer)
        if params.detokenize:
            raise AssertionError("the stand-in does not detokenize")
        prompt = preprocessed.prompt_token_ids if preprocessed else self._prompt_ids(inputs, params)
        self._check_length(len(prompt))
        cached_tokens = self.engine.blocks.take(prompt, rest.get("cache_salt"))
        result = RequestOutput(params, prompt, cached_tokens=cached_tokens)
        # Token ids alone do not pass through the processor of the model, which computes positions.
        has_positions = "image_token_id" in self._config and ("prompt" in inputs or "multi_modal_data" in inputs)
        remaining = (self.args.max_seq_len or 2**31) - len(prompt)
        for index in range(params.n):
            script = self._script(prompt, params, inputs)
            limit = min(params.max_tokens, remaining)
            self.engine.add(Running(result, params, script, limit, len(prompt), has_positions, index))
        return result

    def _prompt_ids(self, inputs: dict[str, Any], params: SamplingParams) -> list[int]:
        images = (inputs.get("multi_modal_data") or {}).get("image")
        if not images:
            ids = inputs.get("prompt_token_ids")
            if ids is not None:
                return list(ids)
            if "image_token_id" in self._config:
                _process(**inputs.get("mm_processor_kwargs"))
            return self.tokenizer.encode(inputs["prompt"])
        if "image_token_id" not in self._config:
            raise ValueError("the model has no image processor")
        if since("1.3.0rc0") and "prompt_token_ids" in inputs:
            ids = list(inputs["prompt_token_ids"])
        else:
            text = inputs.get("prompt") or self.tokenizer.decode(inputs["prompt_token_ids"])
            params.add_special_tokens = False
            ids = self.tokenizer.encode(text)
            _process(**inputs.get("mm_processor_kwargs"))
        return self._expanded(ids, images)

    def _expanded(self, ids: list[int], images: list[Any]) -> list[int]:
        left = list(images)
        expanded: list[int] = []
        for token_id in ids:
            if token_id != self._config["image_token_id"]:
                expanded.append(token_id)
                continue
            image = left.pop(0)
            if image.mode != "RGB":
                raise ValueError(f"image mode {image.mode}")
            width, height = image.size
            if min(width, height) < IMAGE_FACTOR:
                raise RuntimeError(f"shape '[{width}, {height}]' is invalid for input")
            count = (width // IMAGE_FACTOR) * (height // IMAGE_FACTOR)
            # An id outside the vocabulary.
            expanded += [self._config["vocab_size"] + 1] * count
        if left:
            raise ValueError(f"{len(left)} images without a placeholder")
        time.sleep(0.001 * len(images))
        return expanded

    def _check_length(self, length: int) -> None:
        if not self.args.enable_chunked_prefill and length > self.args.max_num_tokens:
            rejection = RequestError if since("1.3.0rc0") else ValueError
            raise rejection(
                f"The sum of prompt length ({length}) should not exceed max_num_tokens ({self.args.max_num_tokens})"
            )

    def _script(self, prompt: list[int], params: SamplingParams, inputs: dict[str, Any]) -> Script:
        structured_output = params.guided_decoding
        if structured_output is not None:
            if self.args.guided_decoding_backend is None:
                raise ValueError("guided decoding is not enabled")
            kind = next(name for name, text in self._stand_in["guided"].items() if getattr(structured_output, name))
            return Script([*self.tokenizer.encode(self._stand_in["guided"][kind]), self.tokenizer.eos_token_id])
        images = (inputs.get("multi_modal_data") or {}).get("image")
        if images:
            return Script([*self.tokenizer.encode(", ".join(map(_colour, images))), self.tokenizer.eos_token_id])
        for answer in self._stand_in["answers"]:
            wanted = answer.get("prompt_contains", [])
            if any(prompt[i : i + len(wanted)] == wanted for i in range(len(prompt) - len(wanted) + 1)):
                return Script(**{key: answer[key] for key in Script.__dataclass_fields__ if key in answer})
        raise ValueError("the stand-in has no response to this prompt")


class LLM12(BaseLLM):
    def generate_async(  # noqa: PLR0917 - the real signature
        self,
        inputs: Any,
        sampling_params: SamplingParams | None = None,
        lora_request: Any = None,
        prompt_adapter_request: Any = None,
        streaming: bool = False,
        kv_cache_retention_config: Any = None,
        disaggregated_params: Any = None,
        _postproc_params: Any = None,
        scheduling_params: Any = None,
        cache_salt: str | None = None,
    ) -> RequestOutput:
        return self._start(inputs, sampling_params or SamplingParams(), streaming=streaming, cache_salt=cache_salt)


class LLM13(BaseLLM):
    def generate_async(  # noqa: PLR0917 - the real signature
        self,
        inputs: Any,
        sampling_params: SamplingParams | None = None,
        lora_request: Any = None,
        streaming: bool = False,
        kv_cache_retention_config: Any = None,
        disaggregated_params: Any = None,
        trace_headers: dict[str, str] | None = None,
        _postproc_params: Any = None,
        scheduling_params: Any = None,
        conversation_params: Any = None,
        cache_salt: str | None = None,
        priority: float = 0.5,
    ) -> RequestOutput:
        return self._start(
            inputs,
            sampling_params or SamplingParams(),
            streaming=streaming,
            cache_salt=cache_salt,
            trace_headers=trace_headers,
        )

    def _check_health(self) -> bool:
        return not self.engine.dead


class LLM13Preprocessing(LLM13):
    def preprocess(
        self, inputs: Any, sampling_params: SamplingParams | None = None, disaggregated_params: Any = None
    ) -> PreprocessedInputs:
        params = sampling_params or SamplingParams()
        if params.end_id is None:
            params.set_up(self.tokenizer)
        return PreprocessedInputs(self._prompt_ids(inputs, params), inputs)

    def encode(self, rows: list[list[int]]) -> list[Any]:
        if not self.args.encode_only:
            raise RuntimeError("LLM.encode() needs encode_only=True")
        if len(rows) > self.args.max_batch_size:
            raise ValueError(f"{len(rows)} prompts exceed max_batch_size ({self.args.max_batch_size})")
        if (total := sum(map(len, rows))) > self.args.max_num_tokens:
            raise ValueError(f"{total} tokens exceed max_num_tokens ({self.args.max_num_tokens})")
        if self.args.max_seq_len and (longest := max(map(len, rows))) > self.args.max_seq_len:
            raise ValueError(f"{longest} tokens exceed max_seq_len ({self.args.max_seq_len})")
        return [SimpleNamespace(logits=Tensor(np.array([[3 * len(row), 4 * len(row)]], np.float32))) for row in rows]

    def get_kv_cache_capacity(self) -> dict[str, int]:
        return {"maxNumBlocks": 32, "tokensPerBlock": 32, "maxNumTokens": CACHED_TOKENS}


LLM = LLM13Preprocessing if since("1.3.0rc22") else LLM13 if since("1.3.0rc0") else LLM12


def _start_ranks() -> None:
    """Start the processes of the further GPUs, by MPI_Comm_spawn."""
    if os.environ.get("TLLM_SPAWN_PROXY_PROCESS") == "1":
        # The launcher has as many ranks as its own job: the real one waits for the others forever.
        raise RuntimeError("the job of trtllm-llmapi-launch has 1 rank")
    if "OMPI_COMM_WORLD_SIZE" not in os.environ:
        raise RuntimeError("MPI_ERR_SPAWN: could not spawn processes")


def _process(**kwargs: Any) -> None:
    """Accept mm_processor_kwargs as the model's processor does."""


def _colour(image: Any) -> str:
    red, green, blue = image.getpixel((0, 0))
    return max((red, "red"), (green, "green"), (blue, "blue"))[1]
