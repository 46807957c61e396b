"""A tiny model of Qwen3's architecture with random weights and the real vocabulary, as a GGUF file."""

from __future__ import annotations

import json
from pathlib import Path

import gguf
import numpy as np

LAYERS, WIDTH, HEADS, KV_HEADS, HEAD_WIDTH, INNER, CONTEXT = 2, 64, 2, 1, 32, 128, 4096
PATCH, GRID, ENCODER_WIDTH, DEEPSTACK = 16, 16, 32, 1


def write(path: Path, tokenizer: Path, *, template: str = "", supports_vision: bool = False) -> None:
    """Write the model.

    Args:
        path: The GGUF file to write.
        tokenizer: A directory with Qwen3's tokenizer.json and tokenizer_config.json.
        template: The chat template; Qwen3's own by default.
        supports_vision: Whether the model has Qwen3-VL's architecture.
    """
    vocabulary = json.loads((tokenizer / "tokenizer.json").read_text())
    configuration = json.loads((tokenizer / "tokenizer_config.json").read_text())
    added = {entry["id"]: entry for entry in vocabulary["added_tokens"]}
    ids = {
        **{i: text for text, i in vocabulary["model"]["vocab"].items()},
        **{i: e["content"] for i, e in added.items()},
    }
    tokens = [ids[i] for i in range(len(ids))]
    writer = gguf.GGUFWriter(path, arch="qwen3vl" if supports_vision else "qwen3")
    if supports_vision:
        writer.add_rope_dimension_sections([6, 5, 5, 0])
        writer.add_num_deepstack_layers(DEEPSTACK)
    writer.add_context_length(CONTEXT)
    writer.add_block_count(LAYERS)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_key_length(HEAD_WIDTH)
    writer.add_value_length(HEAD_WIDTH)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(1e6)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(tokens)
    writer.add_token_types([_kind(added.get(i)) for i in range(len(tokens))])
    writer.add_token_merges(
        [merge if isinstance(merge, str) else " ".join(merge) for merge in vocabulary["model"]["merges"]]
    )
    writer.add_eos_token_id(tokens.index("<|im_end|>"))
    writer.add_chat_template(template or configuration["chat_template"])
    _add_weights(writer, len(tokens))
    _finish(writer)


def write_mmproj(path: Path, *, projector: str = gguf.VisionProjectorType.QWEN3VL) -> None:
    """Write the vision encoder and projector of a model that supports vision."""
    writer = gguf.GGUFWriter(path, arch="clip")
    writer.add_type("mmproj")
    writer.add_clip_has_vision_encoder(value=True)
    writer.add_clip_projector_type(projector)
    writer.add_vision_projection_dim(WIDTH)
    writer.add_vision_patch_size(PATCH)
    writer.add_vision_image_size(PATCH * GRID)
    writer.add_vision_embedding_length(ENCODER_WIDTH)
    writer.add_vision_feed_forward_length(ENCODER_WIDTH * 2)
    writer.add_vision_block_count(1)
    writer.add_vision_head_count(2)
    writer.add_vision_attention_layernorm_eps(1e-6)
    writer.add_vision_image_mean([0.5] * 3)
    writer.add_vision_image_std([0.5] * 3)
    writer.add_vision_spatial_merge_size(2)
    writer.add_vision_use_gelu(value=True)
    writer.add_vision_is_deepstack_layers([True])
    _add_vision_encoder(writer)
    _finish(writer)


def _finish(writer: gguf.GGUFWriter) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _kind(entry: dict[str, object] | None) -> int:
    if entry is None:
        return gguf.TokenType.NORMAL
    return gguf.TokenType.CONTROL if entry["special"] else gguf.TokenType.USER_DEFINED


def _add_weights(writer: gguf.GGUFWriter, vocabulary: int) -> None:
    chance = np.random.default_rng(3)

    def add(name: str, *shape: int) -> None:
        values = chance.normal(0, 0.05, shape) if len(shape) > 1 else np.ones(shape)
        writer.add_tensor(f"{name}.weight", values.astype(np.float32))

    add("token_embd", vocabulary, WIDTH)
    add("output_norm", WIDTH)
    for layer in range(LAYERS):
        block = f"blk.{layer}"
        add(f"{block}.attn_norm", WIDTH)
        add(f"{block}.attn_q", HEADS * HEAD_WIDTH, WIDTH)
        add(f"{block}.attn_k", KV_HEADS * HEAD_WIDTH, WIDTH)
        add(f"{block}.attn_v", KV_HEADS * HEAD_WIDTH, WIDTH)
        add(f"{block}.attn_q_norm", HEAD_WIDTH)
        add(f"{block}.attn_k_norm", HEAD_WIDTH)
        add(f"{block}.attn_output", WIDTH, HEADS * HEAD_WIDTH)
        add(f"{block}.ffn_norm", WIDTH)
        add(f"{block}.ffn_gate", INNER, WIDTH)
        add(f"{block}.ffn_up", INNER, WIDTH)
        add(f"{block}.ffn_down", WIDTH, INNER)


def _add_vision_encoder(writer: gguf.GGUFWriter) -> None:
    chance = np.random.default_rng(5)

    def add(name: str, rows: int, columns: int) -> None:
        writer.add_tensor(f"{name}.weight", chance.normal(0, 0.2, (rows, columns)).astype(np.float32))
        writer.add_tensor(f"{name}.bias", np.zeros(rows, np.float32))

    def add_norm(name: str, size: int) -> None:
        writer.add_tensor(f"{name}.weight", np.ones(size, np.float32))
        writer.add_tensor(f"{name}.bias", np.zeros(size, np.float32))

    for name in ("v.patch_embd.weight", "v.patch_embd.weight.1"):
        writer.add_tensor(name, chance.normal(0, 0.2, (ENCODER_WIDTH, 3, PATCH, PATCH)).astype(np.float32))
    writer.add_tensor("v.patch_embd.bias", np.zeros(ENCODER_WIDTH, np.float32))
    writer.add_tensor("v.position_embd.weight", chance.normal(0, 0.2, (GRID**2, ENCODER_WIDTH)).astype(np.float32))
    add_norm("v.blk.0.ln1", ENCODER_WIDTH)
    add_norm("v.blk.0.ln2", ENCODER_WIDTH)
    add("v.blk.0.attn_qkv", ENCODER_WIDTH * 3, ENCODER_WIDTH)
    add("v.blk.0.attn_out", ENCODER_WIDTH, ENCODER_WIDTH)
    add("v.blk.0.ffn_up", ENCODER_WIDTH * 2, ENCODER_WIDTH)
    add("v.blk.0.ffn_down", ENCODER_WIDTH, ENCODER_WIDTH * 2)
    add_norm("v.deepstack.0.norm", ENCODER_WIDTH * 4)
    add("v.deepstack.0.fc1", ENCODER_WIDTH * 4, ENCODER_WIDTH * 4)
    add("v.deepstack.0.fc2", WIDTH, ENCODER_WIDTH * 4)
    add_norm("v.post_ln", ENCODER_WIDTH)
    add("mm.0", ENCODER_WIDTH * 4, ENCODER_WIDTH * 4)
    add("mm.2", WIDTH, ENCODER_WIDTH * 4)
