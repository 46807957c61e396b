"""The chart with helm: lint, templates of all value files, and values that its schema rejects."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chart.conftest import MODELS
from tests.support.helm import CHART, VERSION, Manifest, containers, find, run_helm, template, try_template

FILES = ["values", "values-minimal", "values-cpu-demo", *MODELS, "values/production"]


@pytest.mark.parametrize("name", FILES)
def test_lint_is_clean(name: str) -> None:
    result = run_helm("lint", "--strict", CHART, "-f", CHART / f"{name}.yaml")
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("name", FILES)
def test_every_value_file_renders(name: str) -> None:
    manifests = template(name)
    assert find(manifests, "Deployment", "vilix-gateway")


def test_the_chart_can_be_packaged(tmp_path: Path) -> None:
    result = run_helm("package", CHART, "-d", tmp_path)
    assert result.returncode == 0, result.stderr
    assert run_helm("template", "vilix", tmp_path / f"vilix-{VERSION}.tgz").returncode == 0


@pytest.mark.parametrize(
    ("setting", "name"),
    [
        ("gateway.replica=3", "replica"),
        ("gateway.replicas=many", "replicas"),
        ("gateway.maxSurge=0", "maxSurge"),
        ("models.qwen3-8b.gpus=-1", "gpus"),
        ("models.qwen3-8b.gpus=3", "gpus"),
        ("models.qwen3-8b.gpus=16", "gpus"),
        ("models.qwen3-8b.autoscaling.minReplicas=0", "minReplicas"),
        ("valkey.backup.schedule=daily", "schedule"),
        ("ingress.controller=unknown", "controller"),
        ("keys.list[0].name=no-digest", "digest"),
        ("models.qwen3-8b.engine=sglang", "engine"),
        ("models.qwen3-8b.engineArguments=fast", "engineArguments"),
        ("models.qwen3-8b.wieghts.repo=a/b", "wieghts"),
        ("models.qwen3-8b.weights.repo=Qwen3-8B", "repo"),
        ("models.Qwen3.replicas=1", "Qwen3"),
        ("images.gateway.digest=sha256:12", "digest"),
        ("maxStreamSeconds=0", "maxStreamSeconds"),
        ("redis.url=http://redis", "url"),
        ("valkey.maxmemoryPercent=100", "maxmemoryPercent"),
        ("redis.urlSecret.name=only-a-name", "urlSecret"),
        ("listenAddress=127.0.0.1", "listenAddress"),
        ("networkPolicy.internalNamespaces[0]=Not_A_Namespace", "internalNamespaces"),
    ],
)
def test_the_schema_rejects_invalid_values(setting: str, name: str) -> None:
    result = try_template("values/qwen3-8b", sets=[setting])
    assert result.returncode != 0
    assert "schema" in result.stderr
    assert name in result.stderr


@pytest.mark.parametrize(
    ("sets", "message"),
    [
        (["models.some-model.replicas=1"], "models.some-model.weights.repo"),
        (["models.some-model.weights.source=image"], "models.some-model.weights.image"),
        (["models.some-model.weights.source=volume"], "models.some-model.weights.volume.existingClaim"),
        (["models.some-model.weights.repo=a/b", "models.some-model.gpus=0"], "models.some-model.gpus"),
        (
            ["models.some-model.weights.repo=a/b", "models.some-model.gpus=0", "models.some-model.engine=vllm"],
            "models.some-model.gpus",
        ),
        (
            [
                "models.some-model.weights.repo=a/b",
                "models.some-model.maxSurge=0",
                "models.some-model.maxUnavailable=0",
            ],
            "maxUnavailable",
        ),
        (["models.some-model.weights.repo=a/b", "models.some-model.engine=llamacpp"], "models.some-model.gpus"),
        (
            [
                "models.some-model.weights.repo=a/b",
                "models.some-model.kind=embeddings",
                "models.some-model.engine=transformers",
                "models.some-model.gpus=2",
            ],
            "models.some-model.gpus",
        ),
        (
            [
                "models.some-model.weights.repo=a/b",
                "models.some-model.gpus=2",
                "models.some-model.gpuResource=nvidia.com/mig-1g.10gb",
            ],
            "models.some-model.gpus",
        ),
        (["models.some-model.weights.repo=a/b", "models.some-model.gpuResource="], "models.some-model.gpuResource"),
        (
            ["models.some-model.weights.repo=a/b", "models.some-model.autoscaling.minReplicas=5"],
            "models.some-model.autoscaling.minReplicas",
        ),
        (['models={"b.c": {"weights": {"repo": "a/b"}}, "b-c": {"weights": {"repo": "a/b"}}}'], "the same name"),
        (["valkey.persistence.enabled=false", "valkey.backup.enabled=true"], "valkey.backup"),
        (["valkey.enabled=false"], "redis.url"),
        (["tls.enabled=true"], "tls.issuerRef.name"),
        (["ingress.enabled=true"], "ingress.host"),
        (["gateway.admin.enabled=true"], "gateway.admin.tokenSecret"),
        (["httpRoute.enabled=true"], "httpRoute.parentRefs"),
    ],
)
def test_incomplete_values_are_rejected_with_the_value_to_set(sets: list[str], message: str) -> None:
    result = try_template(sets=sets)
    assert result.returncode != 0
    assert message in result.stderr


def test_a_release_whose_name_leaves_no_place_for_others_is_rejected() -> None:
    result = try_template(release="a-name-that-leaves-no-place-for-others")
    assert result.returncode != 0
    assert "30 characters" in result.stderr


def test_a_registry_replaces_the_registries_of_all_images() -> None:
    manifests = template("values/qwen3-8b", sets=["images.registry=mirror.local:5000/hub"])
    images = {
        container["image"]
        for manifest in manifests
        if manifest["kind"] in ("Deployment", "StatefulSet", "Pod")
        for container in containers(manifest).values()
    }
    assert images == {
        f"mirror.local:5000/hub/vilix/gateway:{VERSION}",
        f"mirror.local:5000/hub/vilix/worker:{VERSION}",
        f"mirror.local:5000/hub/vilix/triton:{VERSION}",
        "mirror.local:5000/hub/valkey/valkey:8.1.8-alpine",
    }


def test_a_digest_replaces_the_tag() -> None:
    digest = f"sha256:{'0a' * 32}"
    manifests = template(sets=[f"images.gateway.digest={digest}"])
    gateway = containers(find(manifests, "Deployment", "vilix-gateway"))["gateway"]
    assert gateway["image"] == f"ghcr.io/vilix/gateway@{digest}"


def test_two_releases_share_no_name_and_no_selector() -> None:
    one, other = template("values-cpu-demo", release="one"), template("values-cpu-demo", release="other")
    assert not _names(one) & _names(other)
    for ours, theirs in ((one, other), (other, one)):
        for service in (m for m in ours if m["kind"] == "Service"):
            for workload in (m for m in theirs if m["kind"] in ("Deployment", "StatefulSet")):
                labels = workload["spec"]["template"]["metadata"]["labels"]
                assert not service["spec"]["selector"].items() <= labels.items()


def _names(manifests: list[Manifest]) -> set[tuple[str, str]]:
    return {(m["kind"], m["metadata"]["name"]) for m in manifests}
