from __future__ import annotations

from pathlib import Path

import pytest

from services.inference.model import gguf_identity
from services.inference.model.catalog import load_model

SOURCE = Path("/weights/mine.gguf")


@pytest.mark.parametrize(
    ("model_id", "name", "architecture"),
    [
        ("qwen3-8b", "Qwen3 8B", "qwen3"),
        ("qwen3-8b", "Qwen3-8B-Instruct", "qwen3"),
        ("qwen3-vl", "Qwen3 VL 8B Instruct", "qwen3vl"),
        ("qwen2.5vl", "Qwen2.5 VL 7B Instruct", "qwen2vl"),
        ("minimax", "MiniMax M2", "minimax-m2"),
        ("qwen2.5-coder-0.5b", "Qwen2.5 Coder 0.5B Instruct AWQ", "qwen2"),
        ("smollm2-135m", "Smollm2 135M 8k Lc100K Mix1 Ep2", "llama"),
    ],
)
def test_a_file_of_the_entrys_checkpoint_is_recognized(model_id: str, name: str, architecture: str) -> None:
    metadata = {"general.name": name, "general.architecture": architecture}
    assert gguf_identity.find_difference(load_model(model_id), metadata, SOURCE) is None


@pytest.mark.parametrize(
    ("name", "architecture"),
    [("Qwen2.5 Coder 0.5B Instruct AWQ", "qwen2"), ("Qwen3 14B", "qwen3"), ("Qwen3 8B", "llama")],
)
def test_another_file_is_named_in_one_line(name: str, architecture: str) -> None:
    metadata = {"general.name": name, "general.architecture": architecture}
    difference = gguf_identity.find_difference(load_model("qwen3-8b"), metadata, SOURCE)
    assert difference is not None
    assert "\n" not in difference
    assert f"the file is {name} (mine.gguf), architecture {architecture}" in difference
    assert "qwen3-8b stands for Qwen3-8B (qwen3)" in difference


def test_a_file_without_a_name_goes_by_the_name_of_the_file() -> None:
    metadata = {"general.architecture": "qwen3"}
    spec = load_model("qwen3-8b")
    assert gguf_identity.find_difference(spec, metadata, Path("/w/Qwen3-8B-Q4_K_M.gguf")) is None
    assert "the file is mine.gguf" in str(gguf_identity.find_difference(spec, metadata, SOURCE))


def test_the_name_is_kept_in_the_model_directory(tmp_path: Path) -> None:
    assert gguf_identity.read_name(tmp_path) is None
    gguf_identity.write_name(tmp_path, "Qwen3 8B (من.gguf)")
    assert gguf_identity.read_name(tmp_path) == "Qwen3 8B (من.gguf)"
