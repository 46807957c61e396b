"""Stands for transformers where guides are compiled for trial: the tokenizer is not looked at."""

from __future__ import annotations

from pathlib import Path


class AutoTokenizer:
    @staticmethod
    def from_pretrained(directory: str) -> str:
        assert Path(directory, "config.json").is_file()
        return directory
