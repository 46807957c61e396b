"""The images are pushed with attestations, and the chart gets their digests."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from docker import publish, sbom
from tests.support.helm import CHART, run_helm
from tests.support.repository import ROOT

BASE, BUILT = f"sha256:{'0a' * 32}", f"sha256:{'0b' * 32}"
DOCKER = f"""#!{sys.executable}
import json, sys
from pathlib import Path
arguments = sys.argv[1:]
with open("{{log}}", "a") as log:
    log.write(json.dumps(arguments) + chr(10))
if "inspect" in arguments:
    print("{BASE}")
else:
    metadata = arguments[arguments.index("--metadata-file") + 1]
    Path(metadata).write_text(json.dumps({{{{"containerimage.digest": "{BUILT}"}}}}))
"""


@pytest.fixture
def docker(tmp_path: Path) -> Path:
    """Return the log of a stand-in for docker, which is first in PATH of `published`."""
    program = tmp_path / "bin" / "docker"
    program.parent.mkdir()
    program.write_text(DOCKER.format(log=tmp_path / "log"))
    program.chmod(0o755)
    return tmp_path / "log"


def published(docker: Path, *arguments: str) -> str:
    environment = {**os.environ, "PATH": f"{docker.parent / 'bin'}:{os.environ['PATH']}"}
    command = [sys.executable, "docker/publish.py", "registry.example.com/ai", *arguments]
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_images_are_pushed_with_attestations_and_pinned_bases(docker: Path, tmp_path: Path) -> None:
    values = published(docker)
    calls = [json.loads(line) for line in docker.read_text().splitlines()]
    builds = [call for call in calls if "build" in call]
    assert len(builds) == len(publish.IMAGES)
    for call in builds:
        assert {"--push", "--sbom=true", "--provenance=mode=max"} <= set(call)
        assert any(argument.endswith(f"_DIGEST={BASE}") for argument in call)
        assert (ROOT / call[call.index("--file") + 1]).exists()
    assert len([call for call in calls if "inspect" in call]) == 3, "each base is looked up once"
    (tmp_path / "images.yaml").write_text(values)
    result = run_helm("template", "vilix", CHART, "-f", CHART / "values/qwen3-8b.yaml", "-f", tmp_path / "images.yaml")
    assert result.returncode == 0, result.stderr
    for name in ("gateway", "worker", "triton"):
        assert f"registry.example.com/ai/{name}@{BUILT}" in result.stdout
    on_vllm = ["--set", "models.qwen3-8b.engine=vllm"]
    files = ["-f", CHART / "values/qwen3-8b.yaml", "-f", tmp_path / "images.yaml"]
    result = run_helm("template", "vilix", CHART, *files, *on_vllm)
    assert f"registry.example.com/ai/triton-vllm@{BUILT}" in result.stdout


def test_a_reviewed_digest_is_not_looked_up(docker: Path) -> None:
    published(docker, "--only", "gateway", "--digest", f"{publish.PYTHON}=sha256:{'0c' * 32}")
    (call,) = [json.loads(line) for line in docker.read_text().splitlines()]
    assert f"PYTHON_DIGEST=sha256:{'0c' * 32}" in call


def test_bases_are_those_of_the_dockerfiles() -> None:
    for image in publish.IMAGES:
        text = (ROOT / "docker" / f"{image.dockerfile}.Dockerfile").read_text()
        assert f"ARG {image.base_argument}={image.base}\n" in text
        assert not image.target or f" AS {image.target}\n" in text


@pytest.mark.parametrize("image", ["gateway", "worker", "cpu"])
def test_the_document_lists_every_locked_package_with_its_hashes(image: str) -> None:
    lock = (ROOT / "requirements" / f"{image}.txt").read_text()
    document = sbom.document(image)
    assert len(document["components"]) == lock.count("==")
    assert sum(len(component["hashes"]) for component in document["components"]) == lock.count("--hash=sha256:")
    references = {component["bom-ref"] for component in document["components"]}
    assert set(document["dependencies"][0]["dependsOn"]) == references
