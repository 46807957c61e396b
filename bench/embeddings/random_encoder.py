"""Writes encoders of the shapes of Qwen3-Embedding with random weights: they show speed and memory, not quality."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

SHAPES: dict[str, dict[str, int]] = {
    "0.6b": {"hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 28, "num_attention_heads": 16},
    "4b": {"hidden_size": 2560, "intermediate_size": 9728, "num_hidden_layers": 36, "num_attention_heads": 32},
    "8b": {"hidden_size": 4096, "intermediate_size": 12288, "num_hidden_layers": 36, "num_attention_heads": 32},
    "tiny": {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4},
}
"""The dimensions of the models; the last one is for a machine without a GPU."""
VOCABULARY = 151_669
END = 151_643
"""The token <|endoftext|>, which ends every text."""
MAX_TOKENS = 32_768
SEED = 7
_STEPS = {"Transformer": "", "Pooling": "1_Pooling", "Normalize": "2_Normalize"}


def write(directory: Path, shape: str) -> None:
    """Write an encoder of `shape` in bfloat16, made on a GPU if there is one, as sentence-transformers lays it out."""
    import torch  # noqa: PLC0415 - only machines with a GPU have it
    from transformers import Qwen3Config, Qwen3Model  # noqa: PLC0415 - as above

    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(SEED)
    config = Qwen3Config(
        vocab_size=VOCABULARY,
        num_key_value_heads=min(8, SHAPES[shape]["num_attention_heads"]),
        head_dim=128,
        max_position_embeddings=MAX_TOKENS,
        rope_theta=1e6,
        eos_token_id=END,
        pad_token_id=END,
        dtype="bfloat16",
        **SHAPES[shape],
    )
    with torch.device(device):
        model = Qwen3Model(config).to(torch.bfloat16)
    model.save_pretrained(directory)
    (directory / "1_Pooling").mkdir(exist_ok=True)
    modules = [
        {"idx": index, "name": str(index), "path": path, "type": f"sentence_transformers.models.{step}"}
        for index, (step, path) in enumerate(_STEPS.items())
    ]
    _write(directory / "modules.json", modules)
    _write(directory / "1_Pooling" / "config.json", {"pooling_mode_lasttoken": True})
    _write(directory / "tokenizer_config.json", {"padding_side": "left"})


def _write(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value))
