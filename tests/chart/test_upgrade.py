"""An upgrade changes nothing that Kubernetes cannot change, and keeps what holds data.

`released.json` has the fields of the last release that an API server rejects changes of. A release replaces it:
`python -m tests.chart.test_upgrade > tests/chart/released.json`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.chart.conftest import MODELS
from tests.support.helm import Manifest, template

RELEASED = Path(__file__).with_name("released.json")
INSTALLATIONS = {
    "production": (*MODELS, "values/production"),
    "demo": ("values-cpu-demo",),
    "smallest": ("values-minimal",),
}
IMMUTABLE = {
    "Deployment": ("selector",),
    "StatefulSet": ("selector", "serviceName", "volumeClaimTemplates"),
    "Service": ("clusterIP",),
}
"""The fields of a specification that cannot be changed, by kind."""


def immutable(manifests: list[Manifest]) -> dict[str, Any]:
    """Return the fields that an upgrade must not change, by kind and name."""
    return {
        f"{m['kind']} {m['metadata']['name']}": {
            field: m["spec"][field] for field in IMMUTABLE[m["kind"]] if field in m["spec"]
        }
        for m in manifests
        if m["kind"] in IMMUTABLE
    }


@pytest.mark.parametrize("installation", INSTALLATIONS)
def test_an_upgrade_from_the_last_release_is_accepted(installation: str) -> None:
    released = json.loads(RELEASED.read_text())[installation]
    now = immutable(template(*INSTALLATIONS[installation]))
    assert released.keys() <= now.keys(), "a workload with another name has other volumes and pods"
    assert {name: fields for name, fields in now.items() if name in released} == released


def test_a_changed_selector_is_seen() -> None:
    released = json.loads(RELEASED.read_text())["demo"]
    manifests = template("values-cpu-demo")
    gateway = next(m for m in manifests if m["metadata"]["name"] == "vilix-gateway" and m["kind"] == "Deployment")
    gateway["spec"]["selector"]["matchLabels"]["new"] = "label"
    assert immutable(manifests) != released


if __name__ == "__main__":
    found = {name: immutable(template(*files)) for name, files in INSTALLATIONS.items()}
    json.dump(found, sys.stdout, indent=1, sort_keys=True)
    print()
