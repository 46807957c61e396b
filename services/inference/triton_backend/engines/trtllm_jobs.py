"""Makes jobs of requests, and rejects requests that would harm TensorRT-LLM, or fail in it without a useful message."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from services.inference.triton_backend.contract import (
    Request,
    Sink,
    Usage,
    output_limit,
    reject_unknown_tokens,
)
from services.inference.triton_backend.engines.trtllm_checkpoint import Checkpoint
from services.inference.triton_backend.engines.trtllm_job import Job
from services.inference.triton_backend.engines.trtllm_result import ResultReader
from services.inference.triton_backend.engines.trtllm_structured_output import kind_not_supported
from services.inference.triton_backend.prompt_images import reject_misplaced


@dataclass(frozen=True)
class Jobs:
    """Makes the jobs of one loaded model."""

    tokenizer: Any
    checkpoint: Checkpoint
    context_length: int
    structured_output_kinds: frozenset[str]

    def make(self, request: Request, sink: Sink) -> Job:
        """Return the job of a request. Raises RequestError if it is rejected."""
        params, prompt, vocabulary = request.params, request.prompt_token_ids, self.checkpoint.vocabulary
        if request.text_input is not None:
            prompt = self.tokenizer.encode(request.text_input, add_special_tokens=False)
        limit = output_limit(len(prompt), params, self.context_length)
        reject_unknown_tokens("prompt_token_ids", prompt, vocabulary)
        reject_unknown_tokens("stop_token_ids", params.stop_token_ids, vocabulary)
        reject_unknown_tokens("logit_bias", (token_id for token_id, _ in params.logit_bias), vocabulary)
        if params.structured_output is not None and params.structured_output.kind not in self.structured_output_kinds:
            raise kind_not_supported()
        reject_misplaced(request, prompt, self.checkpoint.image_token_id)
        eos_id: int | None = self.tokenizer.eos_token_id
        end_ids = self.checkpoint.end_ids | ({eos_id} if eos_id is not None else set())
        reader = ResultReader(params, limit=limit, end_ids=end_ids, eos_id=eos_id)
        return Job(request, sink, limit, Usage(prompt_tokens=len(prompt)), reader)
