"""Rendered manifests of the chart, shared by all tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chart.cluster import running_cluster
from tests.support.helm import CHART, Manifest, template

MODELS = sorted(f"values/{path.stem}" for path in (CHART / "values").glob("*.yaml") if path.stem != "production")


@pytest.fixture(scope="session")
def production() -> list[Manifest]:
    """Return the manifests of all models with values/production.yaml."""
    return template(*MODELS, "values/production")


@pytest.fixture(scope="session")
def demo() -> list[Manifest]:
    """Return the manifests of the demo without GPUs."""
    return template("values-cpu-demo")


@pytest.fixture(scope="session")
def starting(tmp_path_factory: pytest.TempPathFactory) -> list[Manifest]:
    """Return the manifests of an installation that `helm template` does not render: those that start pools."""
    with running_cluster(tmp_path_factory.mktemp("cluster"), server_side=True) as cluster:
        pinned = [f"images.gateway.digest=sha256:{'0a' * 32}", "images.gateway.pullPolicy=Always"]
        cluster.install("values/qwen3-8b", sets=pinned)
        (job,) = cluster.start_jobs()
        job["metadata"]["name"] = "vilix-start-x"
        return [m for m in cluster.server.manifests() if m["metadata"]["name"].startswith("vilix-start")]


@pytest.fixture
def rendered(tmp_path: Path) -> Path:
    """Return a path to which a test may write manifests."""
    return tmp_path / "manifests.yaml"
