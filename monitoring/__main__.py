"""`python -m monitoring` writes the reference of the metrics, and the rules and dashboards of the chart.

`python -m monitoring --check` exits with 1 when one of these files is out of date.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

from monitoring.dashboards import dashboards
from monitoring.reference import reference
from monitoring.rules import rules

ROOT: Final = Path(__file__).parents[1]
CHART_FILES: Final = ROOT / "helm" / "vilix" / "files" / "monitoring"


def files() -> dict[Path, str]:
    """Return the text of every generated file."""
    return {
        ROOT / "docs" / "metrics.md": reference(),
        CHART_FILES / "rules.yaml": rules(),
        **{CHART_FILES / f"{dashboard.name}.json": dashboard.json() for dashboard in dashboards()},
    }


def main() -> None:
    """Write the files, or check with --check that they are up to date."""
    for path, text in files().items():
        if "--check" not in sys.argv[1:]:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        elif not path.exists() or path.read_text() != text:
            raise SystemExit(f"error: {path.relative_to(ROOT)} is out of date; run make monitoring")


if __name__ == "__main__":
    main()
