"""Install the stand-in for TensorRT-LLM, and write checkpoints that it replays."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
EOS = 2
OTHER_EOS = 0
"""An end-of-sequence token that only generation_config.json contains."""
IMAGE_TOKEN = 49000
VOCABULARY = 49152
QWEN3, QWEN25_VL, QWEN3_VL = (
    "Qwen3ForCausalLM",
    "Qwen2_5_VLForConditionalGeneration",
    "Qwen3VLForConditionalGeneration",
)


def install(directory: Path, *, version: str) -> Path:
    """Copy the stand-in packages into `directory`, and return it. The caller adds it to Python's path."""
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(HERE / "tensorrt_llm", directory / "tensorrt_llm", ignore=ignored)
    for name in ("torch.py", "transformers.py", "xgrammar.py", "llguidance.py"):
        shutil.copy(HERE / name, directory)
    (directory / "tensorrt_llm" / "VERSION").write_text(version)
    return directory


def write_checkpoint(
    directory: Path, answers: Sequence[Mapping[str, Any]], *, architecture: str = QWEN3, step_ms: float = 5
) -> Path:
    """Write a model directory whose model replays `answers`.

    The last of them has no `prompt_contains`, and so matches any prompt.
    """
    directory.mkdir(parents=True, exist_ok=True)
    config: dict[str, Any] = {"architectures": [architecture], "vocab_size": VOCABULARY}
    if "VL" in architecture:
        config["image_token_id"] = IMAGE_TOKEN
    stand_in = {
        "eos_token_id": EOS,
        "special_tokens": {"<|image_pad|>": IMAGE_TOKEN, "<|im_end|>": EOS},
        "step_ms": step_ms,
        "guided": {
            "json": '{"city": "تهران"}',
            "json_object": "{}",
            "regex": "42",
            "structural_tag": "x",
            "grammar": "oui",
        },
        "answers": list(answers),
    }
    for name, values in (
        ("config", config),
        ("generation_config", {"eos_token_id": [EOS, OTHER_EOS]}),
        ("stand_in", stand_in),
    ):
        (directory / f"{name}.json").write_text(json.dumps(values))
    return directory
