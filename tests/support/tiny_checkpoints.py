"""Makes tiny checkpoints with random weights, and notes what transformers computes with them.

A model knows some sequences of tokens by heart: each of their tokens is followed by the next one with near certainty.
All else that it says is random. Beside its directory, NAME.json has the log probabilities of the tokens of a prompt and
of the most probable following one, from transformers' own forward pass.

The file is also a program, for an environment with transformers: its argument is a list of Checkpoint as JSON.
"""

from __future__ import annotations

import itertools
import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

QWEN3, QWEN2_5_VL, QWEN3_VL = "qwen3", "qwen2.5-vl", "qwen3-vl"
IMAGE, VISION_START, VISION_END, VIDEO = 151_655, 151_652, 151_653, 151_656
IMAGE_SIZE = (112, 56)
WIDTH, HEADS, HEAD_WIDTH = 64, 4, 32
LEARNED_WIDTH, LEARNED = 256, 0.1
"""The width of a model that has learned sequences, and the share of a token's embedding in its follower's row: the
logit of the follower is about 25, and that of any other token less than 6.
"""
SECONDS = 300
_TEXT = {
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": HEADS,
    "num_key_value_heads": 2,
    "max_position_embeddings": 4096,
}


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint to make."""

    directory: str
    architecture: str
    tokenizer: str
    """A directory with tokenizer.json and tokenizer_config.json."""
    vocabulary: int
    ends: tuple[int, ...]
    prompt: tuple[int, ...]
    """The prompt whose log probabilities are noted. It may have one IMAGE, which stands for `picture`."""
    sequences: tuple[tuple[int, ...], ...] = ()
    idle_layers: int = 0
    """Further layers of QWEN3 that change nothing. They make it as slow as a test needs that watches it generate."""


def make(python: Path, checkpoints: Sequence[Checkpoint]) -> None:
    """Make checkpoints in the environment of `python`."""
    text = json.dumps([asdict(checkpoint) for checkpoint in checkpoints])
    subprocess.run([python, __file__, text], check=True, capture_output=True, timeout=SECONDS)


def picture() -> Any:
    """Return the image of the prompts."""
    import numpy as np
    from PIL import Image

    pixels = np.random.default_rng(3).integers(0, 255, (IMAGE_SIZE[1], IMAGE_SIZE[0], 3), np.uint8)
    return Image.fromarray(pixels)


def _write(checkpoint: Checkpoint) -> None:
    import torch

    torch.manual_seed(7)
    directory = Path(checkpoint.directory)
    model = {QWEN3: _qwen3, QWEN2_5_VL: _qwen2_5_vl, QWEN3_VL: _qwen3_vl}[checkpoint.architecture](checkpoint).eval()
    with torch.no_grad():
        # They are large, and dominate what two layers add to them.
        embeddings, head = model.get_input_embeddings().weight, model.lm_head.weight
        embeddings.copy_(torch.randn(embeddings.shape))
        for sequence in checkpoint.sequences:
            for token_id, following in itertools.pairwise(sequence):
                head[following] += LEARNED * embeddings[token_id]
        if checkpoint.idle_layers:
            for layer in model.model.layers[-checkpoint.idle_layers :]:
                layer.self_attn.o_proj.weight.zero_()
                layer.mlp.down_proj.weight.zero_()
    model.save_pretrained(directory)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy2(Path(checkpoint.tokenizer) / name, directory / name)
    _write_json(directory / "generation_config.json", {"eos_token_id": checkpoint.ends})
    if checkpoint.architecture != QWEN3:
        _write_json(directory / "preprocessor_config.json", _preprocessor(checkpoint.architecture))
    ids, images = list(checkpoint.prompt), {}
    if IMAGE in ids:
        place = ids.index(IMAGE)
        images = _pixels(directory)
        ids[place : place + 1] = [IMAGE] * (int(images["image_grid_thw"].prod()) // 4)
        images["mm_token_type_ids"] = (torch.tensor([ids]) == IMAGE).long()
    with torch.no_grad():
        rows = model(input_ids=torch.tensor([ids]), **images).logits[0].float().log_softmax(-1)
    own = [float(rows[index, token_id]) for index, token_id in enumerate(ids[1:])]
    following = int(rows[-1].argmax())
    note = {"prompt": ids, "logprobs": own, "following": following, "following_logprob": float(rows[-1, following])}
    _write_json(directory.with_name(f"{directory.name}.json"), note)


def _qwen3(checkpoint: Checkpoint) -> Any:
    from transformers import Qwen3Config, Qwen3ForCausalLM

    return Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=checkpoint.vocabulary,
            hidden_size=LEARNED_WIDTH,
            head_dim=HEAD_WIDTH,
            eos_token_id=checkpoint.ends[0],
            tie_word_embeddings=False,
            **{**_TEXT, "num_hidden_layers": _TEXT["num_hidden_layers"] + checkpoint.idle_layers},
        )
    )


def _qwen2_5_vl(checkpoint: Checkpoint) -> Any:
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    vision = {**_vision(HEADS * HEAD_WIDTH), "patch_size": 14, "window_size": 56, "fullatt_block_indexes": [1]}
    text = {"hidden_size": HEADS * HEAD_WIDTH, "rope_parameters": _rope([4, 6, 6])}
    return Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(**_with_vision(checkpoint, text, vision)))


def _qwen3_vl(checkpoint: Checkpoint) -> Any:
    from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

    vision = {**_vision(WIDTH), "patch_size": 16, "num_position_embeddings": 256, "deepstack_visual_indexes": [0]}
    rope = {**_rope([6, 5, 5]), "mrope_interleaved": True}
    text = {"hidden_size": WIDTH, "head_dim": HEAD_WIDTH, "rope_parameters": rope}
    return Qwen3VLForConditionalGeneration(Qwen3VLConfig(**_with_vision(checkpoint, text, vision)))


def _with_vision(checkpoint: Checkpoint, text: dict[str, Any], vision: dict[str, Any]) -> dict[str, Any]:
    return {
        "text_config": {**_TEXT, **text, "vocab_size": checkpoint.vocabulary, "tie_word_embeddings": False},
        "vision_config": vision,
        "image_token_id": IMAGE,
        "video_token_id": VIDEO,
        "vision_start_token_id": VISION_START,
        "vision_end_token_id": VISION_END,
        "tie_word_embeddings": False,
    }


def _vision(width: int) -> dict[str, Any]:
    return {"depth": 2, "hidden_size": 64, "num_heads": 2, "intermediate_size": 64, "out_hidden_size": width}


def _rope(sections: list[int]) -> dict[str, Any]:
    return {"rope_type": "default", "rope_theta": 1e6, "mrope_section": sections}


def _preprocessor(architecture: str) -> dict[str, Any]:
    is_newer = architecture == QWEN3_VL
    return {
        "image_processor_type": "Qwen2VLImageProcessor",
        "processor_class": "Qwen3VLProcessor" if is_newer else "Qwen2_5_VLProcessor",
        "patch_size": 16 if is_newer else 14,
        "temporal_patch_size": 2,
        "merge_size": 2,
        "image_mean": [0.5] * 3,
        "image_std": [0.5] * 3,
        "size": {"shortest_edge": 28 * 28, "longest_edge": 128 * 128},
    }


def _pixels(directory: Path) -> dict[str, Any]:
    from transformers import AutoImageProcessor

    return dict(AutoImageProcessor.from_pretrained(directory)(images=[picture()], return_tensors="pt"))


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value))


if __name__ == "__main__":
    for fields in json.loads(sys.argv[1]):
        _write(Checkpoint(**fields))
