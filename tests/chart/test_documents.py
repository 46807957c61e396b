"""The values, commands, names and links in docs/kubernetes.md exist."""

from __future__ import annotations

import re
import shlex
import textwrap
from pathlib import Path

import pytest
import yaml

from helm import readme
from services.inference.model.catalog import ModelSpec
from tests.support.helm import CHART, find, run_helm, template
from tests.support.repository import ROOT

DOCUMENT = ROOT / "docs" / "kubernetes.md"
TEXT = DOCUMENT.read_text()
BLOCKS = re.findall(r"^ *```(\w+)\n(.*?)^ *```", TEXT, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("name", ["kubernetes.md", "operations.md"])
def test_named_values_exist(name: str) -> None:
    text = DOCUMENT.with_name(name).read_text()
    paths = {value.path for value in readme.values((CHART / "values.yaml").read_text())}
    parts = {".".join(path.split(".")[:count]) for path in paths for count in range(1, 8)}
    known = parts | {part.removeprefix("modelDefaults.") for part in parts}
    tops = {path.partition(".")[0] for path in known}
    named = {name.removeprefix("models.ID.") for name in re.findall(r"`([a-z][A-Za-z]*(?:\.[A-Za-z]+)+)[:=`]", text)}
    named = {name for name in named if name.partition(".")[0] in tops}
    assert len(named) > (25 if name == "kubernetes.md" else 10)
    assert named <= known


SCRIPTS = "".join(block for kind, block in BLOCKS if kind == "sh").replace("\\\n", " ")
INSTALLATIONS = [line.strip() for line in SCRIPTS.splitlines() if re.match(r" *helm (install|upgrade)", line)]


@pytest.mark.parametrize(
    "command", [line for line in INSTALLATIONS if "helm/vilix" in line and "my-values" not in line]
)
def test_the_installation_commands_render(command: str, tmp_path: Path) -> None:
    _, _, release, chart, *arguments = shlex.split(command)
    arguments = [argument for argument in arguments if argument not in ("--create-namespace", "--reuse-values")]
    assert chart == "helm/vilix"
    (tmp_path / "images.yaml").write_text("images: {}")
    own = {"dist/images.yaml": str(tmp_path / "images.yaml")}
    arguments = [str(ROOT / a) if a.startswith("helm/") else own.get(a, a) for a in arguments]
    result = run_helm("template", release, CHART, *arguments)
    assert result.returncode == 0, result.stderr


def test_the_examples_of_values_render(tmp_path: Path) -> None:
    blocks = [textwrap.dedent(block) for kind, block in BLOCKS if kind == "yaml" and "apiVersion:" not in block]
    assert len(blocks) > 2
    for block in blocks:
        (tmp_path / "values.yaml").write_text(block)
        result = run_helm("template", "vilix", CHART, "-f", tmp_path / "values.yaml")
        assert result.returncode == 0, result.stderr
        for entry in yaml.safe_load(block).get("models", {}).values():
            ModelSpec.model_validate({"id": "our-model", **entry["catalog"]})


def test_links_lead_to_files_and_headings() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", TEXT):
        if not target.startswith("https:"):
            assert (DOCUMENT.parent / target).exists(), target
    titles = [line.removeprefix("## ").lower() for line in TEXT.splitlines() if line.startswith("## ")]
    anchors = {re.sub(r"[^a-z0-9 -]", "", title).replace(" ", "-") for title in titles}
    assert set(re.findall(r"\]\(#([^)]+)\)", TEXT)) == anchors


def test_names_and_ports_agree_with_the_manifests() -> None:
    manifests = [*template("values-cpu-demo"), *template("values/qwen3-8b")]
    deployments = {manifest["metadata"]["name"] for manifest in manifests if manifest["kind"] == "Deployment"}
    assert set(re.findall(r"deploy/([a-z0-9.-]+)", TEXT)) <= deployments
    service = find(manifests, "Service", "vilix-qwen3-8b")
    assert [port["port"] for port in service["spec"]["ports"] if port["name"] == "grpc"] == [9001]
    assert "vilix-qwen3-8b.vilix.svc:9001" in TEXT
