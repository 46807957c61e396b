"""The models under test, their prompts, and the recordings of the replay engine."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from typing import Any

from services.worker.triton_client import TritonClient
from services.worker.triton_messages import EngineOutput

CONTEXT_LENGTH = 256
SLOTS = 2
LIMITS = {"context_length": CONTEXT_LENGTH, "slots": SLOTS}
SMOLLM2 = "smollm2-135m"
REPLAY = "replay"
TRTLLM_12 = "trtllm-1.2"
"""The engine trtllm with a stand-in for TensorRT-LLM 1.2.1, without images."""
TRTLLM_13 = "trtllm-1.3"
"""The engine trtllm with a stand-in for a candidate of 1.3, with images."""
TRTLLM_FRAGILE = "trtllm-fragile"
"""The engine trtllm with a stand-in that a test breaks."""
TRTLLM_VERSIONS = {TRTLLM_12: "1.2.1", TRTLLM_13: "1.3.0rc29", TRTLLM_FRAGILE: "1.2.1"}
VLLM = "vllm"
"""The engine vllm with the real vLLM for CPUs, and a tiny model."""
LESSER = "lesser"
"""A replay model with unsupported parameters and a short queue."""
FRAGILE = "fragile"
"""A replay model that a test breaks."""

# "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n"
QUESTION = [1, 4093, 198, 1780, 314, 260, 3575, 282, 4649, 47, 2, 198, 1, 520, 9531, 198]
STORY = [6403, 1980, 253, 655]
"""Once upon a time"""
STORY_RECORDING = list(range(1000, 1200))
VLLM_PROMPT = (40_000, 41_000, 42_000, 300, 301, 302)
"""A prompt whose continuation the tiny model of VLLM has not learned."""
SHORT_RECORDING = [504, 3575, 282, 4649, 314, 7042, 30, 2]
RECORDINGS: list[dict[str, Any]] = [
    {"name": "short", "prompt_contains": [282, 4649, 47], "token_ids": SHORT_RECORDING, "interval_ms": 5},
    {
        "name": "apart",
        "prompt_contains": [11, 12],
        "token_ids": [5, 6, 7, 8],
        "interval_ms": 30,
        "tokens_per_response": 3,
    },
    {
        "name": "timed",
        "prompt_contains": [21],
        "token_ids": [5, 6, 7],
        "at_ms": [0, 0, 60],
        "logprobs": [-0.5, -1.0, -1.5],
        "top_logprobs": [[[5, -0.5], [9, -2.0]], [[6, -1.0]], [[7, -1.5], [8, -1.6]]],
    },
    {"name": "broken", "prompt_contains": [31], "token_ids": [5, 6], "error": "ENGINE_FAILED: the recording says so"},
    {"name": "empty", "prompt_contains": [41], "token_ids": []},
    {"name": "flood", "prompt_contains": [51], "token_ids": [7]},
    {"name": "crash", "prompt_contains": [61], "token_ids": [5], "crash": True},
    {"name": "story", "token_ids": STORY_RECORDING, "start_ms": 10, "interval_ms": 5},
]
STAND_IN_ANSWERS: list[dict[str, Any]] = [
    {"prompt_contains": [31], "token_ids": [5, 6], "request_error": "no room in the cache"},
    {"prompt_contains": [61], "token_ids": [5], "fatal": "CUDA error: an illegal memory access was encountered"},
    *(
        {key: r[key] for key in ("prompt_contains", "token_ids") if key in r}
        for r in RECORDINGS
        if r["name"] == "short"
    ),
    {"token_ids": STORY_RECORDING},
]


@dataclass(frozen=True)
class Subject:
    """A model under test."""

    client: TritonClient
    model: str
    in_steps: bool = False
    """Whether its requests share a stream of steps."""

    def generate(
        self, prompt: list[int], params: Mapping[str, Any], **options: Any
    ) -> AsyncGenerator[EngineOutput, None]:
        """Yield the outputs of a request."""
        generate = self.client.generate_in_steps if self.in_steps else self.client.generate
        return generate(self.model, request_id="test", prompt_token_ids=prompt, params=params, **options)
