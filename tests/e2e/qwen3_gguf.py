"""A tiny model of Qwen3's shape with random weights and the real vocabulary, as a GGUF file."""

from __future__ import annotations

import json
from pathlib import Path

import gguf
import numpy as np

LAYERS, WIDTH, HEADS, KV_HEADS, HEAD_WIDTH, INNER, CONTEXT = 2, 64, 2, 1, 32, 128, 4096


def write(path: Path, tokenizer: Path) -> None:
    """Write the file. `tokenizer` is a directory with Qwen3's tokenizer.json and tokenizer_config.json."""
    vocabulary = json.loads((tokenizer / "tokenizer.json").read_text())
    configuration = json.loads((tokenizer / "tokenizer_config.json").read_text())
    added = {entry["id"]: entry for entry in vocabulary["added_tokens"]}
    ids = {
        **{i: text for text, i in vocabulary["model"]["vocab"].items()},
        **{i: e["content"] for i, e in added.items()},
    }
    tokens = [ids[i] for i in range(len(ids))]
    writer = gguf.GGUFWriter(path, arch="qwen3")
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
    writer.add_chat_template(configuration["chat_template"])
    _add_weights(writer, len(tokens))
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
