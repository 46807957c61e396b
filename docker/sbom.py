"""Write what a wheel of this repository needs as a CycloneDX document: `python docker/sbom.py gateway > sbom.cdx.json`.

Images have an SBOM of their own, which `docker/publish.py` has BuildKit make and attach.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
_PINNED = re.compile(r"^([A-Za-z0-9._-]+)(?:\[[^\]]*\])?==([^ ;\\]+)")
_HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")


def components(requirements: str) -> Iterator[dict[str, Any]]:
    """Yield one component for each pinned package, with the hashes of the files that may be installed."""
    for block in re.split(r"\n(?=[A-Za-z0-9])", requirements):
        if pinned := _PINNED.match(block):
            name, version = pinned.groups()
            name = re.sub(r"[-_.]+", "-", name).lower()
            yield {
                "type": "library",
                "name": name,
                "version": version,
                "purl": f"pkg:pypi/{name}@{version}",
                "bom-ref": f"pkg:pypi/{name}@{version}",
                "hashes": [{"alg": "SHA-256", "content": content} for content in _HASH.findall(block)],
            }


def document(image: str) -> dict[str, Any]:
    """Return the document of what requirements/`image`.txt locks."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    reference = f"pkg:pypi/{project['name']}@{project['version']}"
    listed = list(components((ROOT / "requirements" / f"{image}.txt").read_text()))
    own = {"type": "application", "name": project["name"], "version": project["version"], "bom-ref": reference}
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": own},
        "components": listed,
        "dependencies": [{"ref": reference, "dependsOn": [component["bom-ref"] for component in listed]}],
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("image", choices=("gateway", "worker", "cpu"))
    json.dump(document(parser.parse_args().image), sys.stdout, indent=1)
    print()
