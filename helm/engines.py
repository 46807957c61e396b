"""Write vilix/files/engines.json: the engines of each model of the catalog, the default one first.

The chart rejects an engine that a model does not have when it is rendered, and cannot read the catalog, which is in an
image. `python helm/engines.py` writes the file. `python helm/engines.py --check` exits with 1 when it is out of date.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from services.deployment import rendering
from services.inference.model.catalog import ModelSpec

FILE = Path(__file__).parent / "vilix" / "files" / "engines.json"


def engines() -> dict[str, list[str]]:
    """Return the names of the engines of each model."""
    specs = [rendering.find(model_id) for model_id in rendering.model_ids()]
    return {
        spec.id: [engine.name for engine in (spec.alternatives if isinstance(spec, ModelSpec) else [spec.engine])]
        for spec in specs
    }


def main() -> None:
    """Write the file, or check it."""
    text = json.dumps(engines(), indent=2) + "\n"
    if "--check" not in sys.argv:
        FILE.parent.mkdir(exist_ok=True)
        FILE.write_text(text)
    elif FILE.read_text() != text:
        sys.exit("helm/vilix/files/engines.json is out of date; run make chart-readme")


if __name__ == "__main__":
    main()
