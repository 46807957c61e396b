"""Saves the weights of a GGUF file as a checkpoint in bfloat16. Needs an environment with transformers and gguf.

`python gguf_checkpoint.py FILE TOKENIZER DIRECTORY`; TOKENIZER is a directory with the files of its tokenizer.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path


def main(file: Path, tokenizer: Path, directory: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.bfloat16)
    # The weights are numbers again.
    for owner, mark in ((model.config, "quantization_config"), (model, "hf_quantizer"), (model, "is_quantized")):
        if hasattr(owner, mark):
            delattr(owner, mark)
    model.save_pretrained(directory)
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        shutil.copy2(tokenizer / name, directory / name)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
