"""The API of the installed TensorRT-LLM, whose features are detected when a model is loaded: 1.2 and 1.3 differ."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import inspect
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from services.inference.triton_backend.checkpoint import Checkpoint
from services.inference.triton_backend.contract import Params, Request
from services.inference.triton_backend.engine_version import at_least
from services.inference.triton_backend.engines import trtllm_processes
from services.worker.triton_kit.request_error import RequestError

_OWN: Final = {
    "max_batch_size": "slots",
    "max_seq_len": "context_length",
    "max_input_len": "context_length",
    "num_postprocess_workers": "nothing: tokens are wanted, not text",
    "skip_tokenizer_init": "nothing: without a tokenizer nothing ends an answer",
}
"""Arguments of LLM that the engine sets itself, and what to use instead."""
_LEAST_NUM_TOKENS: Final = 8192
_NEEDED: Final = frozenset(
    {"max_tokens", "temperature", "top_p", "top_k", "stop_token_ids", "ignore_eos", "detokenize"}
    | {"include_stop_str_in_output", "add_special_tokens"}
)
_OPTIONAL: Final = {
    "min_tokens": "min_tokens",
    "min_p": "min_p",
    "frequency_penalty": "frequency_penalty",
    "presence_penalty": "presence_penalty",
    "repetition_penalty": "repetition_penalty",
    "seed": "seed",
    "logprobs": "logprobs",
    "logit_bias": "embedding_bias",
    "structured_output": "guided_decoding",
}
"""Fields of Params, and their names in SamplingParams."""
_TORCH_SAMPLER_SINCE: Final = {
    # It counted the tokens of the prompt (PRs 12166 and 12358).
    "min_tokens": "1.3.0rc10",
    "frequency_penalty": "1.3.0rc24",
    "presence_penalty": "1.3.0rc24",
    "repetition_penalty": "1.3.0rc24",
    "min_p": "1.3.0rc24",
    "seed": "1.3.0rc26",
    # One biased request beside one without ended the thread that generates, and with it the engine.
    "logit_bias": "1.3.0rc26",
}
"""Parameters that the default sampler accepts in every version, and the first version that honours them."""
_FATAL_BIAS: Final = "assert req_bias is not None"
"""A line of a sampler that one `logit_bias` beside another request ends. No document says which candidate lost it."""
_SAMPLERS: Final = ("sampler/sampler_features.py", "sampler/sampler.py", "sampler.py")
"""The files in which the line was, in `_torch/pyexecutor`."""
_NO_OTHER_SAMPLER_SINCE: Final = "1.3.0rc26"
_CHUNKS_IMAGES_SINCE: Final = "1.3"
_IMAGES_WITH_IDS_SINCE: Final = "1.3"
"""Before, TensorRT-LLM made text of the token ids of a prompt with images, and tokens of the text."""
_MIXES_IDS_WITH_IMAGES_SINCE: Final = "1.3.0rc24"
"""Before, only prompts as text got the positions of models with vision; requests with and without ended the engine."""


class TrtllmApi:
    """The package `tensorrt_llm`."""

    def __init__(self) -> None:
        """Import the package. Raises RuntimeError if that fails, or if it lacks a required feature."""
        trtllm_processes.forbid_reports()
        try:
            self._package: Final = importlib.import_module("tensorrt_llm")
            self._llmapi: Final = importlib.import_module("tensorrt_llm.llmapi")
            arguments = importlib.import_module("tensorrt_llm.llmapi.llm_args").TorchLlmArgs.model_fields
        except ImportError as error:
            raise RuntimeError(
                f"tensorrt_llm cannot be imported ({error}); Triton must run in NVIDIA's image "
                "tritonserver:…-trtllm-python-py3 with what docker/triton.Dockerfile adds"
            ) from error
        self.version: Final[str] = self._package.__version__
        self._arguments: Final = frozenset(arguments)
        self._fields: Final = {f.name for f in dataclasses.fields(self._package.SamplingParams)}
        self._generate_takes: Final = frozenset(inspect.signature(self._package.LLM.generate_async).parameters)
        self._one_at_a_time: Final = threading.Lock()
        """Tokenizers are not safe for use by several threads at once."""
        missing = sorted(_NEEDED - self._fields)
        if missing:
            raise RuntimeError(f"TensorRT-LLM {self.version}: SamplingParams has no {missing[0]}; use 1.2.1 or 1.3")

    def load(
        self, checkpoint: Checkpoint, *, model: str, context_length: int, slots: int, arguments: Mapping[str, Any]
    ) -> Any:
        """Load the directory `model`, and return an LLM.

        Raises ValueError or RuntimeError, whose message says what to change.
        """
        arguments = self._checked(checkpoint, context_length, arguments)
        trtllm_processes.reject_missing_job(arguments)
        if "max_input_len" in self._arguments:
            arguments["max_input_len"] = context_length
        if "enable_iter_perf_stats" in self._arguments:
            arguments.setdefault("enable_iter_perf_stats", True)
        # With attention data parallelism, the size is that of each rank.
        size = -(-slots // trtllm_processes.independent_ranks(arguments))
        try:
            return self._package.LLM(model=model, max_batch_size=size, max_seq_len=context_length, **arguments)
        except Exception as error:
            known = self._known_architectures()
            if known and checkpoint.architecture not in known:
                raise ValueError(
                    f"TensorRT-LLM {self.version} cannot run {checkpoint.architecture}; use an image with a newer one"
                ) from error
            raise RuntimeError(f"TensorRT-LLM {self.version} could not load {model}: {error}") from error

    def supported_parameters(self, arguments: Mapping[str, Any]) -> frozenset[str]:
        """Return the fields of Params that this version supports for a model loaded with `arguments`."""
        other_sampler = arguments.get("sampler_type") == "TRTLLMSampler"
        honoured = {
            name
            for name, field in _OPTIONAL.items()
            if field in self._fields
            and (other_sampler or at_least(self.version, _TORCH_SAMPLER_SINCE.get(name, "0.0")))
        }
        if not arguments.get("guided_decoding_backend"):
            honoured.discard("structured_output")
        if not other_sampler and self._ends_with_bias():
            honoured.discard("logit_bias")
        # The engine itself orders waiting requests, and detects end tokens.
        always = {
            "max_tokens",
            "temperature",
            "top_p",
            "top_k",
            "stop_token_ids",
            "ignore_eos",
            "cache_salt",
            "priority",
        }
        return frozenset(honoured | always)

    def structured_output_kinds(self, arguments: Mapping[str, Any]) -> frozenset[str]:
        """Return the kinds of StructuredOutput that the configured guided_decoding_backend supports."""
        backend = arguments.get("guided_decoding_backend")
        if not backend:
            return frozenset()
        kinds = {f.name for f in dataclasses.fields(self._llmapi.GuidedDecodingParams)}
        return frozenset(kinds if backend == "xgrammar" else kinds - {"structural_tag"})

    def prompt(self, request: Request, *, llm: Any, checkpoint: Checkpoint) -> dict[str, Any]:
        """Return the prompt of a request as inputs for `generate`, without its images. It must be called in the loop.

        Raises RequestError for token ids that this version takes only as text, and whose text has other token ids.
        """
        text, sees = request.text_input, checkpoint.image_token_id is not None
        needs_text = sees and not at_least(
            self.version, _IMAGES_WITH_IDS_SINCE if request.images else _MIXES_IDS_WITH_IMAGES_SINCE
        )
        if text is None and needs_text:
            text = self._text_of(request.prompt_token_ids, llm.tokenizer)
        if text is None:
            return {"prompt_token_ids": request.prompt_token_ids}
        # 1.2 requires mm_processor_kwargs where the model's processor reads the prompt.
        return {"prompt": text, "mm_processor_kwargs": {}} if sees else {"prompt": text}

    def with_images(
        self,
        prompt: Mapping[str, Any],
        images: Sequence[Any],
        request: Request,
        *,
        llm: Any,
        limit: int,
        checkpoint: Checkpoint,
    ) -> Any:
        """Return the inputs for `generate` of a prompt with images.

        They may take long, and may be prepared in any thread. If TensorRT-LLM cannot read an image, it raises any kind
        of exception.
        """
        inputs = {**prompt, "multi_modal_data": {"image": list(images)}, "mm_processor_kwargs": {}}
        if not hasattr(llm, "preprocess"):
            return inputs
        with self._one_at_a_time:
            return llm.preprocess(inputs, sampling_params=self._sampling(request.params, limit, checkpoint))

    def generate(self, llm: Any, inputs: Any, request: Request, *, limit: int, checkpoint: Checkpoint) -> Any:
        """Start a request, and return the result to iterate over. It must be called in the loop that iterates.

        Raises ValueError, TypeError or a request error (see `is_request_error`) if the request is rejected.
        """
        params = request.params
        offered: dict[str, Any] = {
            "cache_salt": params.cache_salt or None,
            # TensorRT-LLM exports spans of its own if its argument `otlp_traces_endpoint` is set.
            "trace_headers": dict(params.trace_headers) or None,
        }
        arguments = {name: value for name, value in offered.items() if name in self._generate_takes}
        return llm.generate_async(
            inputs, sampling_params=self._sampling(params, limit, checkpoint), streaming=True, **arguments
        )

    def cache_size(self, llm: Any, arguments: Mapping[str, Any]) -> int | None:
        """Return the capacity of the KV cache in tokens, that of all ranks, or None if it is not known."""
        try:
            of_rank = int(llm.get_kv_cache_capacity()["maxNumTokens"])
            return of_rank * trtllm_processes.independent_ranks(arguments) or None
        except Exception:  # noqa: BLE001 - not all versions have it, and nothing depends on it
            size: int | None = arguments.get("kv_cache_config", {}).get("max_tokens")
            return size

    def has_ended(self, llm: Any) -> bool:
        """Return whether TensorRT-LLM itself says that it has ended. Not every end shows here."""
        # Not all versions have it. What it raises is an end, too.
        check = getattr(llm, "_check_health", None)
        if check is not None and not check():
            return True
        executor: Any = getattr(llm, "_executor", None)
        with contextlib.suppress(Exception):
            if executor.is_shutdown():
                return True
            # Where the engine runs in this process, the end of its thread shows.
            return getattr(executor.engine, "is_shutdown", False) is True
        return False

    def _text_of(self, ids: Sequence[int], tokenizer: Any) -> str:
        text: str = tokenizer.decode(ids, skip_special_tokens=False)
        if list(tokenizer.encode(text, add_special_tokens=False)) == list(ids):
            return text
        problem = (
            f"TensorRT-LLM {self.version} takes prompts of this model as text only, and the text of this one is "
            "read as other tokens, for example because it contains the name of a control token"
        )
        raise RequestError("INVALID_ARGUMENT", "engine_rejects_request", reason=problem)

    def _ends_with_bias(self) -> bool:
        """Return whether the installed sampler has the line that ends the engine."""
        directory = Path(getattr(self._package, "__file__", None) or ".").parent / "_torch" / "pyexecutor"
        files = [directory / name for name in _SAMPLERS]
        return any(file.is_file() and _FATAL_BIAS in file.read_text(errors="replace") for file in files)

    def _sampling(self, params: Params, limit: int, checkpoint: Checkpoint) -> Any:
        """Return a new SamplingParams, because generate_async changes it.

        `end_id` stays unset; otherwise TensorRT-LLM does not complete the parameters from its tokenizer.
        """
        # TensorRT-LLM takes unset values for greedy sampling, and one of its samplers rejects a temperature of 0.
        greedy = params.temperature == 0
        stops = params.stop_token_ids | (frozenset() if params.ignore_eos else checkpoint.end_ids)
        values: dict[str, Any] = {
            "max_tokens": limit,
            "temperature": 1.0 if greedy else params.temperature,
            "top_k": 1 if greedy else params.top_k,
            "top_p": 1.0 if greedy else params.top_p,
            # min_tokens delays the end token, but not stop tokens, which ResultReader detects then.
            "stop_token_ids": None if params.min_tokens else sorted(stops) or None,
            "include_stop_str_in_output": True,
            "ignore_eos": params.ignore_eos,
            "detokenize": False,
            "add_special_tokens": False,
        }
        for name in _OPTIONAL.keys() & params.names:
            values[_OPTIONAL[name]] = self._value(name, params, checkpoint)
        return self._package.SamplingParams(**values)

    def _value(self, name: str, params: Params, checkpoint: Checkpoint) -> Any:
        value = getattr(params, name)
        if name == "logprobs":
            # For 1.2, 0 means no log probabilities.
            return max(1, value)
        if name == "seed":
            # TensorRT-LLM's seed has no sign.
            return value % 2**63
        if name == "logit_bias":
            bias = np.zeros(checkpoint.vocabulary, np.float32)
            for token_id, addend in value:
                bias[token_id] = addend
            return importlib.import_module("torch").from_numpy(bias)
        if name == "structured_output":
            return self._llmapi.GuidedDecodingParams(**{value.kind: value.kind == "json_object" or value.text})
        return value

    def _checked(self, checkpoint: Checkpoint, context_length: int, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments, completed so that no valid request fails later. Raises ValueError with the argument."""
        for name in arguments:
            if name in _OWN:
                raise ValueError(f"{name} is the engine's own; use {_OWN[name]}")
            if name not in self._arguments:
                raise ValueError(
                    f"TensorRT-LLM {self.version} has no argument {name!r}; take it out of the model's entry"
                )
        if arguments.get("sampler_type") == "TRTLLMSampler" and at_least(self.version, _NO_OTHER_SAMPLER_SINCE):
            raise ValueError(f"TensorRT-LLM {self.version} has no TRTLLMSampler any more; leave sampler_type out")
        reuses = arguments.get("kv_cache_config", {}).get("enable_block_reuse", True)
        if reuses and "cache_salt" not in self._generate_takes:
            raise ValueError(
                f"TensorRT-LLM {self.version} cannot keep the caches of tenants apart; "
                "set kv_cache_config.enable_block_reuse to false"
            )
        if arguments.get("enable_chunked_prefill"):
            if checkpoint.image_token_id is not None and not at_least(self.version, _CHUNKS_IMAGES_SINCE):
                raise ValueError(
                    f"TensorRT-LLM {self.version} cannot split prompts with images; leave enable_chunked_prefill out"
                )
            return dict(arguments)
        most = arguments.get("max_num_tokens", max(_LEAST_NUM_TOKENS, context_length))
        if most < context_length:
            raise ValueError(
                f"max_num_tokens={most} is less than the context of {context_length}, so that long prompts would be "
                "rejected; set enable_chunked_prefill, or raise it"
            )
        return {**arguments, "max_num_tokens": most}

    def _known_architectures(self) -> frozenset[str]:
        """Return the names of the supported architectures; empty if this version does not list them."""
        try:
            models = importlib.import_module("tensorrt_llm._torch.models.modeling_utils")
        except ImportError:
            return frozenset()
        return frozenset(getattr(models, "MODEL_CLASS_MAPPING", ()))


def is_request_error(error: BaseException) -> bool:
    """Return whether an error is about one request only. Any other error ends the engine."""
    # Compared by name, because its module differs between versions.
    return any(kind.__name__ == "RequestError" for kind in type(error).__mro__)
