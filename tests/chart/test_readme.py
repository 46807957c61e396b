"""The README and the schema of the chart agree with values.yaml."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import yaml

from helm import readme
from tests.support.helm import CHART
from tests.support.repository import ROOT


def test_every_value_has_a_description() -> None:
    values = list(readme.values((CHART / "values.yaml").read_text()))
    assert len(values) > 100
    assert [value.path for value in values if len(value.description) < 10] == []


def test_the_readme_is_up_to_date() -> None:
    check = subprocess.run(
        [sys.executable, ROOT / "helm" / "readme.py", "--check"], capture_output=True, text=True, check=False
    )
    assert check.returncode == 0, check.stderr


def test_the_chart_knows_the_engines_of_the_catalog() -> None:
    check = subprocess.run(
        [sys.executable, ROOT / "helm" / "engines.py", "--check"], capture_output=True, text=True, check=False
    )
    assert check.returncode == 0, check.stderr


def test_the_schema_has_exactly_the_values() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    defaults = yaml.safe_load((CHART / "values.yaml").read_text())
    # Helm itself adds this value.
    schema["properties"].pop("global")
    assert list(_differences(schema, defaults, schema, "")) == []


def _differences(schema: dict[str, Any], value: Any, root: dict[str, Any], path: str) -> Any:
    if "$ref" in schema:
        name = schema["$ref"].removeprefix("#/$defs/")
        if name in ("resources", "secretKey"):
            return
        schema = root["$defs"][name]
    if isinstance(value, dict) and "properties" in schema:
        assert schema["additionalProperties"] is False, path
        for name in schema["properties"].keys() ^ value.keys():
            yield f"{path}.{name}"
        for name in schema["properties"].keys() & value.keys():
            yield from _differences(schema["properties"][name], value[name], root, f"{path}.{name}")
