from __future__ import annotations

import json
from pathlib import Path

import gguf
import pytest
from hypothesis import given

from services.inference.model.tokenizer import BYTES_OF_CHARACTERS, ModelTokenizer
from services.inference.triton_backend.engines.llama_api import LlamaApi
from services.inference.triton_backend.engines.llama_model import LlamaModel
from services.stack import gguf_metadata, model_import
from tests.support.models import smollm2
from tests.unit.inference.scripted import PIECES, TEXTS

CORPUS = [
    *PIECES,
    "The quick brown fox jumps over the lazy dog's back, won't it?",
    "کتاب‌های من ۱۲۳ تا است؛ «بیش از همه» را خوانده‌ام!",
    "x = [1, 23, 456]\n\tdef f(a):\r\n        return a  # done   ",
    "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n",
    "   leading, trailing   ",
    "1234567890 ٣٤٥ 3.14",
]


@pytest.fixture(scope="session")
def model_directory() -> Path:
    return smollm2()


@pytest.fixture(scope="session")
def tokenizer(model_directory: Path) -> ModelTokenizer:
    return ModelTokenizer(model_directory)


@pytest.fixture(scope="session")
def llama(model_directory: Path) -> LlamaModel:
    return LlamaModel(LlamaApi(), model_directory / "model.gguf", context_length=64, slots=1, threads=1, most_entries=8)


@pytest.mark.parametrize("text", CORPUS)
def test_ids_are_those_of_llama_cpp(llama: LlamaModel, tokenizer: ModelTokenizer, text: str) -> None:
    assert tokenizer.encode(text) == llama.tokenize(text)


@given(text=TEXTS)
def test_ids_of_any_text_are_those_of_llama_cpp(llama: LlamaModel, tokenizer: ModelTokenizer, text: str) -> None:
    assert tokenizer.encode(text) == llama.tokenize(text)


def test_a_complete_directory_is_left_alone(model_directory: Path) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in model_directory.iterdir()}
    told: list[str] = []
    model_import.smollm2(model_directory, progress=told.append)
    assert {path.name: path.stat().st_mtime_ns for path in model_directory.iterdir()} == before
    assert before.keys() == {"tokenizer.json", "tokenizer_config.json", "generation_config.json", "model.gguf"}
    assert told == []


def write_gguf(path: Path, *, model: str = "gpt2", pre: str = "qwen2") -> Path:
    tokens = [*BYTES_OF_CHARACTERS, "ab", "<|im_end|>", "<think>"]
    kinds = [gguf.TokenType.NORMAL] * 257 + [gguf.TokenType.CONTROL, gguf.TokenType.USER_DEFINED]
    writer = gguf.GGUFWriter(path, arch="qwen3")
    writer.add_context_length(64)
    writer.add_tokenizer_model(model)
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges(["a b"])
    writer.add_eos_token_id(257)
    writer.add_chat_template("{{ messages }}")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_an_imported_file_becomes_a_directory_that_links_to_it(tmp_path: Path) -> None:
    source = write_gguf(tmp_path / "mine.gguf")
    model_import.from_gguf(source, tmp_path / "mine")
    tokenizer = ModelTokenizer(tmp_path / "mine")
    assert tokenizer.encode("ab<|im_end|>") == [256, 257]
    assert tokenizer.bytes_of(258) == b"<think>"
    assert tokenizer.special_ids == tokenizer.end_ids == {257}
    assert json.loads((tmp_path / "mine" / "tokenizer_config.json").read_text())["chat_template"] == "{{ messages }}"
    assert (tmp_path / "mine" / "model.gguf").resolve() == source
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "mine.gguf"]


@pytest.mark.parametrize(("model", "pre"), [("gpt2", "llama-bpe"), ("llama", "default")])
def test_an_unsupported_tokenizer_is_rejected_and_leaves_no_files(tmp_path: Path, model: str, pre: str) -> None:
    source = write_gguf(tmp_path / "mine.gguf", model=model, pre=pre)
    with pytest.raises(ValueError, match=f"{model}/{pre}.*smollm, qwen2"):
        model_import.from_gguf(source, tmp_path / "mine")
    assert [path.name for path in tmp_path.iterdir()] == ["mine.gguf"]


def test_a_file_that_is_not_gguf_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "mine.gguf").write_bytes(b"not a model, but long enough to be read as one")
    with pytest.raises(ValueError, match=r"mine\.gguf cannot be read as GGUF"):
        model_import.from_gguf(tmp_path / "mine.gguf", tmp_path / "mine")


def test_metadata_is_read_as_the_package_gguf_reads_it(tmp_path: Path) -> None:
    source = write_gguf(tmp_path / "mine.gguf")
    fields = {
        name: field.contents() for name, field in gguf.GGUFReader(source).fields.items() if not name.startswith("GGUF.")
    }
    assert gguf_metadata.read(source) == fields


def test_a_truncated_file_is_rejected_wherever_it_ends(tmp_path: Path) -> None:
    content = write_gguf(tmp_path / "mine.gguf").read_bytes()
    cut = tmp_path / "cut.gguf"
    for size in range(0, len(content) - 64, 97):
        cut.write_bytes(content[:size])
        with pytest.raises(ValueError, match=r"cut\.gguf cannot be read as GGUF"):
            gguf_metadata.read(cut)
