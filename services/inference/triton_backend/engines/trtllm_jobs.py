"""Makes jobs of requests, and rejects requests that would harm TensorRT-LLM, or fail in it without a useful message."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from services.inference.triton_backend.checkpoint import Checkpoint
from services.inference.triton_backend.contract import Request, Sink, Usage
from services.inference.triton_backend.engines.trtllm_job import Job
from services.inference.triton_backend.engines.trtllm_result import ResultReader
from services.inference.triton_backend.request_checks import checked_prompt


@dataclass(frozen=True)
class Jobs:
    """Makes the jobs of one loaded model."""

    tokenizer: Any
    checkpoint: Checkpoint
    context_length: int
    structured_output_kinds: frozenset[str]

    def make(self, request: Request, sink: Sink) -> Job:
        """Return the job of a request. Raises RequestError if it is rejected."""
        prompt, limit = checked_prompt(
            request,
            tokenizer=self.tokenizer,
            checkpoint=self.checkpoint,
            context_length=self.context_length,
            structured_output_kinds=self.structured_output_kinds,
            engine="trtllm",
        )
        eos_id: int | None = self.tokenizer.eos_token_id
        end_ids = self.checkpoint.end_ids | ({eos_id} if eos_id is not None else set())
        reader = ResultReader(request.params, limit=limit, end_ids=end_ids, eos_id=eos_id)
        return Job(request, sink, limit, Usage(prompt_tokens=len(prompt)), reader)
