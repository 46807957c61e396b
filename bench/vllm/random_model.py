"""Writes checkpoints of the shapes of Qwen3 with random weights: they show speed and correctness, not quality."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

SHAPES: dict[str, dict[str, Any]] = {
    "qwen3-0.6b": {
        "hidden_size": 1024,
        "intermediate_size": 3072,
        "num_hidden_layers": 28,
        "num_attention_heads": 16,
        "tie_word_embeddings": True,
    },
    "qwen3-8b": {
        "hidden_size": 4096,
        "intermediate_size": 12288,
        "num_hidden_layers": 36,
        "num_attention_heads": 32,
        "tie_word_embeddings": False,
    },
    "tiny": {
        "hidden_size": 128,
        "intermediate_size": 256,
        "num_hidden_layers": 2,
        "num_attention_heads": 16,
        "tie_word_embeddings": True,
    },
}
"""The dimensions of the models; the last one is for a machine without a GPU."""
_COMMON = {
    "architectures": ["Qwen3ForCausalLM"],
    "model_type": "qwen3",
    "vocab_size": 151_936,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "max_position_embeddings": 40_960,
    "rope_theta": 1_000_000,
    "rms_norm_eps": 1e-06,
    "hidden_act": "silu",
    "attention_bias": False,
    "bos_token_id": 151_643,
    "eos_token_id": 151_645,
    "dtype": "bfloat16",
}
_ENDS = [151_645, 151_643]
_TOKENIZER = ("tokenizer.json", "tokenizer_config.json")
SEED = 7


def write(directory: Path, shape: str, tokenizer: Path, *, with_weights: bool) -> None:
    """Write a checkpoint with the files of Qwen3's `tokenizer`, and weights made on a GPU if there is one."""
    config = {**_COMMON, **SHAPES[shape]}
    if with_weights:
        import torch  # noqa: PLC0415 - only machines with vLLM have it
        from transformers import Qwen3Config, Qwen3ForCausalLM  # noqa: PLC0415 - as above

        torch.manual_seed(SEED)
        with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
            model = Qwen3ForCausalLM(Qwen3Config(**config)).to(torch.bfloat16)
        model.save_pretrained(directory)
        del model
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    (directory / "config.json").write_text(json.dumps(config))
    (directory / "generation_config.json").write_text(json.dumps({"eos_token_id": _ENDS}))
    for name in _TOKENIZER:
        shutil.copy2(tokenizer / name, directory / name)
