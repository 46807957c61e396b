"""Files that repeat the version or the licence of the product agree with it."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any, Final

import yaml

ROOT: Final = Path(__file__).parents[2]


def project(path: str) -> dict[str, Any]:
    """Return the table `project` of a pyproject.toml."""
    table: dict[str, Any] = tomllib.loads((ROOT / path).read_text())["project"]
    return table


PRODUCT: Final = project("pyproject.toml")
CHART: Final[dict[str, Any]] = yaml.safe_load((ROOT / "helm" / "vilix" / "Chart.yaml").read_text())


def test_the_package_of_the_protos_has_the_version_of_the_product() -> None:
    assert project("proto/pyproject.toml")["version"] == PRODUCT["version"]


def test_the_chart_has_the_version_of_the_product() -> None:
    assert (CHART["version"], CHART["appVersion"]) == (PRODUCT["version"], PRODUCT["version"])


def test_the_kubernetes_guide_names_images_and_chart_of_this_version() -> None:
    text = (ROOT / "docs" / "kubernetes.md").read_text()
    versions = set(re.findall(r"\$REGISTRY/vilix/[$a-z]+:([0-9][^ ]*)", text))
    versions |= set(re.findall(r"vilix-([0-9]\S*)\.tgz", text))
    assert versions == {PRODUCT["version"]}


def test_the_changelog_has_a_section_for_unreleased_changes() -> None:
    headings = re.findall(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[0] == "Unreleased"


def test_packages_and_chart_name_the_licence_that_they_carry() -> None:
    named = (
        PRODUCT["license"],
        project("proto/pyproject.toml")["license"],
        CHART["annotations"]["artifacthub.io/license"],
    )
    assert named == ("Apache-2.0",) * 3
    assert (ROOT / "proto" / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()
