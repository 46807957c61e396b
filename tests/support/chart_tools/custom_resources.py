"""Run with the Python of the chart's tools: report what the schemas of custom resources do not allow in a YAML file.

An API server drops unknown fields with a warning; here they are errors.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

MODULES = {
    "keda.sh": "keda",
    "cert-manager.io": "cert_manager",
    "monitoring.coreos.com": "prometheus_operator",
}


def problems(document: dict[str, Any]) -> Iterator[str]:
    """Yield one line for each problem of a manifest."""
    group, _, version = document["apiVersion"].partition("/")
    module = importlib.import_module(f"cloudcoil.models.{MODULES[group]}.{version}")
    name = f"{document['kind']} {document['metadata']['name']}"
    try:
        resource = getattr(module, document["kind"]).model_validate(document)
    except ValueError as error:
        yield f"{name}: {error}"
        return
    # The metadata are Kubernetes' own, and their model has fewer fields.
    known = resource.model_dump(by_alias=True, exclude_unset=True)
    yield from (f"{name}: unknown field {path}" for path in _missing(document["spec"], known["spec"], "spec"))


def _missing(given: Any, known: Any, path: str) -> Iterator[str]:
    if isinstance(given, dict) and isinstance(known, dict):
        for key, value in given.items():
            if key not in known:
                yield f"{path}.{key}"
            else:
                yield from _missing(value, known[key], f"{path}.{key}")
    elif isinstance(given, list) and isinstance(known, list):
        for index, (value, own) in enumerate(zip(given, known, strict=False)):
            yield from _missing(value, own, f"{path}[{index}]")


if __name__ == "__main__":
    documents = [document for document in yaml.safe_load_all(Path(sys.argv[1]).read_text()) if document]
    found = [problem for document in documents for problem in problems(document)]
    print("\n".join(found))
    raise SystemExit(1 if found else 0)
