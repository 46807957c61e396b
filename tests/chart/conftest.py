"""What the chart renders, once for all tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.helm import CHART, Manifest, template

MODELS = sorted(f"values/{path.stem}" for path in (CHART / "values").glob("*.yaml") if path.stem != "production")


@pytest.fixture(scope="session")
def production() -> list[Manifest]:
    """All models, with what a public service adds."""
    return template(*MODELS, "values/production")


@pytest.fixture(scope="session")
def demo() -> list[Manifest]:
    """The demo without GPUs."""
    return template("values-cpu-demo")


@pytest.fixture
def rendered(tmp_path: Path) -> Path:
    """Where a test may write what was rendered."""
    return tmp_path / "manifests.yaml"
