"""Write vilix/README.md: an introduction, and a table of all values with the comments of values.yaml.

`python helm/readme.py` writes the file. `python helm/readme.py --check` exits with 1 when the file is out of date.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import yaml

CHART = Path(__file__).parent / "vilix"
INTRODUCTION = """\
# Vilix

Self-hosted AI inference behind the APIs of OpenAI and Anthropic: gateways, one inference pool per model, Valkey.

```
helm install vilix helm/vilix -n vilix --create-namespace -f helm/vilix/values-cpu-demo.yaml
```

[docs/kubernetes.md](../../docs/kubernetes.md) is the guide: from an empty cluster to the first token, upgrades, mirrors
and air-gapped installations.

| file | contents |
|---|---|
| `values-cpu-demo.yaml` | the whole platform without a GPU |
| `values-minimal.yaml` | one model on one GPU, without redundancy |
| `values/MODEL.yaml` | a model with the GPUs, memory and volume that it needs; the files can be combined |
| `values/production.yaml` | additions for a public service: mTLS, a Redis of its own, an Ingress, metrics |

## Values

`make chart-readme` generates this table from `values.yaml`. `values.schema.json` rejects any other value.
"""


class Value:
    """A value with its default and description, both as text."""

    def __init__(self, path: str, default: str, description: str) -> None:
        """Take the three cells of a row of the table."""
        self.path = path
        self.default = default
        self.description = description


def values(text: str) -> Iterator[Value]:
    """Yield every value of a values.yaml. A mapping without comments inside is one value; others are traversed."""
    lines = text.splitlines()
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    assert isinstance(root, yaml.MappingNode)  # noqa: S101  # a values.yaml is a mapping
    yield from _values(root, (), lines)


def _values(node: yaml.MappingNode, path: tuple[str, ...], lines: list[str]) -> Iterator[Value]:
    for key, value in node.value:
        here = (*path, key.value)
        if isinstance(value, yaml.MappingNode) and any(_comment(child, lines) for child, _ in value.value):
            yield from _values(value, here, lines)
        else:
            default = yaml.SafeLoader("").construct_object(value, deep=True)
            yield Value(".".join(here), json.dumps(default, ensure_ascii=False), _comment(key, lines))


def _comment(key: yaml.Node, lines: list[str]) -> str:
    """Return the comment lines directly above a key."""
    first = key.start_mark.line
    comment: list[str] = []
    while first and lines[first - 1].strip().startswith("#"):
        first -= 1
        comment.insert(0, lines[first].strip().removeprefix("#").strip())
    return " ".join(comment)


def readme() -> str:
    """Return the text of the whole file."""
    rows = ["| value | default | meaning |", "|---|---|---|"]
    rows += [
        f"| `{value.path}` | `{value.default}` | {value.description} |"
        for value in values((CHART / "values.yaml").read_text())
    ]
    return "\n".join([INTRODUCTION, *rows, ""])


def main() -> None:
    """Write the file, or check with --check that it is up to date."""
    path = CHART / "README.md"
    if "--check" not in sys.argv[1:]:
        path.write_text(readme())
    elif path.read_text() != readme():
        raise SystemExit(f"error: {path} is out of date; run make chart-readme")


if __name__ == "__main__":
    main()
