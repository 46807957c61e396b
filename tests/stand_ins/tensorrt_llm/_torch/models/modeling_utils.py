from __future__ import annotations

from tensorrt_llm.version import since

MODEL_CLASS_MAPPING = dict.fromkeys(
    [
        "Qwen3ForCausalLM",
        "Qwen2_5_VLForConditionalGeneration",
        *(["Qwen3VLForConditionalGeneration", "MiniMaxM2ForCausalLM"] if since("1.3.0rc0") else []),
    ],
    object,
)
