"""Rendered manifests of the chart, shared by all tests."""

from __future__ import annotations

from pathlib import Path

import pytest

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


@pytest.fixture
def rendered(tmp_path: Path) -> Path:
    """Return a path to which a test may write manifests."""
    return tmp_path / "manifests.yaml"
