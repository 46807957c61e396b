"""The API of the installed vLLM: its engine AsyncLLM, whose arguments are checked when a model is loaded."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Mapping
from typing import Any, Final

from services.inference.triton_backend.checkpoint import Checkpoint
from services.inference.triton_backend.contract import ALL_PARAMETERS, MAX_TOP_LOGPROBS, Params, Request
from services.inference.triton_backend.engines import vllm_processes, vllm_structured_output
from services.inference.triton_backend.engines.vllm_statistics import Statistics, logger_factory

_OWN: Final = {
    "max_num_seqs": "slots",
    "max_model_len": "context_length",
    "skip_tokenizer_init": "nothing: structured output needs the tokenizer",
    "enable_log_requests": "nothing: requests do not belong in a log",
    "disable_log_stats": "nothing: the engine reads the statistics itself",
    "reasoning_parser": "the parser of the model's entry",
    "max_logprobs": "nothing: it is what the contract allows",
    "logprobs_mode": "nothing: log probabilities are the model's own",
}
"""Arguments of AsyncEngineArgs that the engine sets itself, and what to use instead."""
WARM_UP: Final = "warm-up"
"""The name of the first request."""
_NOT_WITH_SPECULATION: Final = frozenset({"min_p", "logit_bias"})
"""Parameters that vLLM rejects while it decodes speculatively."""
_OF_THE_REQUEST: Final = (ValueError, TypeError, NotImplementedError)
"""Errors of checks before vLLM takes a request, besides its own kind."""


class VllmApi:
    """The package `vllm`."""

    def __init__(self) -> None:
        """Import the package. Raises RuntimeError if that fails."""
        vllm_processes.prepare()
        try:
            self._package: Final = importlib.import_module("vllm")
            self._sampling: Final = importlib.import_module("vllm.sampling_params")
            self._engine_args: Final = importlib.import_module("vllm.engine.arg_utils").AsyncEngineArgs
            self._engine: Final = importlib.import_module("vllm.v1.engine.async_llm").AsyncLLM
            exceptions = importlib.import_module("vllm.exceptions")
            self._dead: Final = importlib.import_module("vllm.v1.engine.exceptions").EngineDeadError
        except ImportError as error:
            raise RuntimeError(
                f"vllm cannot be imported ({error}); Triton must run in NVIDIA's image "
                "tritonserver:…-vllm-python-py3 with what docker/triton-vllm.Dockerfile adds"
            ) from error
        self.version: Final[str] = self._package.__version__
        own = getattr(exceptions, "VLLMClientError", ValueError)
        self._of_the_request: Final = (own, *_OF_THE_REQUEST)

    def reject_unknown(self, arguments: Mapping[str, Any]) -> None:
        """Raise ValueError for the first argument that AsyncEngineArgs does not have, or that is the engine's own."""
        known = {field.name for field in dataclasses.fields(self._engine_args)}
        for name in arguments:
            if name in _OWN:
                raise ValueError(f"{name} is the engine's own; use {_OWN[name]}")
            if name not in known:
                raise ValueError(f"vLLM {self.version} has no argument {name!r}; take it out of the model's entry")

    async def load(
        self, *, model: str, context_length: int, slots: int, statistics: Statistics, arguments: Mapping[str, Any]
    ) -> Any:
        """Load the directory `model`, and return an AsyncLLM, which belongs to the running loop.

        Raises ValueError or RuntimeError, whose message is one line.
        """
        # With data parallelism, the size is that of each rank.
        size = -(-slots // int(arguments.get("data_parallel_size") or 1))
        given = {"scheduling_policy": "priority", **arguments}
        try:
            config = self._engine_args(
                model=model,
                max_model_len=context_length,
                max_num_seqs=size,
                max_logprobs=MAX_TOP_LOGPROBS,
                disable_log_stats=True,
                **given,
            )
            llm = self._engine.from_engine_args(config, stat_loggers=[logger_factory(statistics)])
            await self._warm_up(llm)
        except Exception as error:
            reason = " ".join(str(error).split())[:500]
            raise RuntimeError(f"vLLM {self.version} could not load {model}: {reason}") from error
        return llm

    def supported_parameters(self, arguments: Mapping[str, Any]) -> frozenset[str]:
        """Return the fields of Params that are supported for a model loaded with `arguments`, `calls` not included."""
        excluded = _NOT_WITH_SPECULATION if arguments.get("speculative_config") else frozenset()
        return ALL_PARAMETERS - excluded - {"calls"}

    def generate(
        self, llm: Any, inputs: Any, request: Request, *, name: str, limit: int, checkpoint: Checkpoint
    ) -> Any:
        """Start a request, and return the asynchronous generator of its outputs, which aborts it when it is closed.

        `name` must be no other request's. The generator raises what `is_request_error` is true for if the request is
        rejected.
        """
        return llm.generate(
            inputs,
            self._parameters(request.params, limit, checkpoint),
            name,
            # vLLM exports spans of its own if its argument `otlp_traces_endpoint` is set, and ignores them otherwise.
            trace_headers=dict(request.params.trace_headers) or None,
            # For vLLM, a smaller number goes first.
            priority=-request.params.priority,
        )

    def is_end(self, error: BaseException) -> bool:
        """Return whether an error is the end of the engine."""
        return isinstance(error, self._dead) or isinstance(error.__cause__, self._dead)

    def is_request_error(self, error: BaseException) -> bool:
        """Return whether an error is about one request only, which vLLM has not taken."""
        # vLLM wraps errors that are not of its own kind.
        return isinstance(error, self._of_the_request) or isinstance(error.__cause__, self._of_the_request)

    async def _warm_up(self, llm: Any) -> None:
        """Compile what vLLM compiles only when it is first used, which takes up to half a minute."""
        parameters = self._sampling.SamplingParams(max_tokens=1, logprobs=1, prompt_logprobs=1, detokenize=False)
        async for _ in llm.generate({"type": "token", "prompt_token_ids": [0, 0]}, parameters, WARM_UP):
            pass

    def _parameters(self, params: Params, limit: int, checkpoint: Checkpoint) -> Any:
        stops = params.stop_token_ids | (frozenset() if params.ignore_eos else checkpoint.end_ids)
        output = params.structured_output
        return self._sampling.SamplingParams(
            max_tokens=limit,
            min_tokens=params.min_tokens,
            temperature=params.temperature,
            top_p=params.top_p,
            top_k=params.top_k,
            min_p=params.min_p,
            frequency_penalty=params.frequency_penalty,
            presence_penalty=params.presence_penalty,
            repetition_penalty=params.repetition_penalty,
            # For vLLM, -1 means no seed.
            seed=None if params.seed is None else params.seed % 2**63,
            stop_token_ids=sorted(stops),
            ignore_eos=params.ignore_eos,
            logprobs=params.logprobs,
            prompt_logprobs=params.prompt_logprobs,
            logit_bias=dict(params.logit_bias) or None,
            structured_outputs=None if output is None else self._structured_output(output.kind, output.text),
            detokenize=False,
            output_kind=self._sampling.RequestOutputKind.DELTA,
        )

    def _structured_output(self, kind: str, text: str) -> Any:
        value: Any = True if kind == "json_object" else text or vllm_structured_output.ANY_OBJECT
        return self._sampling.StructuredOutputsParams(**{kind: value})
