"""Makes tiny encoders with random weights, and their expected vectors. Needs an environment with transformers.

`python tiny_models.py DIRECTORY` writes DIRECTORY/NAME for every model, and DIRECTORY/NAME.npy with a row per text of
TEXTS, computed by transformers' own forward pass, text by text, so that there is no padding.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

TEXTS = ["سلام", "هوا امروز سرد است و برف می\u200cبارد", "Where is the library?", "a", "کتاب " * 30]
QUERY_PROMPT = "Instruct: find it\nQuery:"
END = "<|endoftext|>"
DIMENSIONS = 64
MAX_TOKENS = 128
QWEN3_RIGHT, QWEN3_LEFT, BERT = "tiny-qwen3-right", "tiny-qwen3-left", "tiny-bert"


def main(directory: Path) -> None:
    import numpy as np
    import torch
    from tokenizers import Tokenizer

    tokenizer = _trained_tokenizer()
    for name in (QWEN3_RIGHT, QWEN3_LEFT, BERT):
        torch.manual_seed(7)
        model = (_bert if name == BERT else _qwen3)(tokenizer.get_vocab_size())
        model_directory = directory / name
        model.save_pretrained(model_directory)
        tokenizer.save(str(model_directory / "tokenizer.json"))
        _write_settings(model_directory, name)
        end_id = tokenizer.token_to_id(END)
        vectors = []
        for text in TEXTS:
            ids = torch.tensor([[*Tokenizer.from_str(tokenizer.to_str()).encode(text).ids, end_id]])
            with torch.no_grad():
                states = model.eval()(input_ids=ids).last_hidden_state[0]
            vector = states.mean(dim=0) if name == BERT else states[-1] / states[-1].norm()
            vectors.append(vector.numpy())
        np.save(directory / f"{name}.npy", np.stack(vectors))


def _trained_tokenizer():  # type: ignore[no-untyped-def]  # its types are in another environment
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=[END], initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(TEXTS * 20, trainer)
    return tokenizer


def _qwen3(vocabulary_size: int):  # type: ignore[no-untyped-def]  # as above
    from transformers import Qwen3Config, Qwen3Model

    return Qwen3Model(
        Qwen3Config(
            vocab_size=vocabulary_size,
            hidden_size=DIMENSIONS,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=16,
            max_position_embeddings=MAX_TOKENS,
        )
    )


def _bert(vocabulary_size: int):  # type: ignore[no-untyped-def]  # as above
    from transformers import BertConfig, BertModel

    return BertModel(
        BertConfig(
            vocab_size=vocabulary_size,
            hidden_size=DIMENSIONS,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=MAX_TOKENS,
        )
    )


def _write_settings(model_directory: Path, name: str) -> None:
    steps = ["Transformer", "Pooling"] if name == BERT else ["Transformer", "Pooling", "Normalize"]
    folders = {"Transformer": "", "Pooling": "1_Pooling", "Normalize": "2_Normalize"}
    modules = [
        {"idx": index, "name": str(index), "path": folders[step], "type": f"sentence_transformers.models.{step}"}
        for index, step in enumerate(steps)
    ]
    pooling = {"pooling_mode_cls_token": False, "pooling_mode_mean_tokens": name == BERT}
    (model_directory / "1_Pooling").mkdir()
    _write(model_directory / "modules.json", modules)
    _write(model_directory / "1_Pooling/config.json", pooling | {"pooling_mode_lasttoken": name != BERT})
    _write(model_directory / "tokenizer_config.json", {"padding_side": "left" if name == QWEN3_LEFT else "right"})
    _write(model_directory / "config_sentence_transformers.json", {"prompts": {"query": QUERY_PROMPT, "document": ""}})


def _write(path: Path, value: object) -> None:
    path.write_text(json.dumps(value))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
