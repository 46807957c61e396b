"""Writes vilix/README.md: its beginning, and a table of all values with the comments of values.yaml.

`python helm/readme.py` writes it, `python helm/readme.py --check` ends with 1 when it is not what it would write.
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

Self-hosted AI inference behind one OpenAI-format API: gateways, one inference pool per model, Valkey.

```
helm install vilix helm/vilix -n vilix --create-namespace -f helm/vilix/values-cpu-demo.yaml
```

From an empty cluster to the first token, upgrades, mirrors and air-gapped installations:
[docs/kubernetes.md](../../docs/kubernetes.md).

| file | what |
|---|---|
| `values-cpu-demo.yaml` | the whole platform without a GPU |
| `values-minimal.yaml` | one model on one GPU, nothing redundant |
| `values/MODEL.yaml` | a model with the GPUs, memory and volume that it needs; any number of them together |
| `values/production.yaml` | what a public service adds: mTLS, a Redis of its own, an Ingress, metrics |

## Values

This table is made of `values.yaml` (`make chart-readme`). `values.schema.json` refuses what is not in it.
"""


class Value:
    """A value with its default and description; both are texts."""

    def __init__(self, path: str, default: str, description: str) -> None:
        """As they stand in the table."""
        self.path = path
        self.default = default
        self.description = description


def values(text: str) -> Iterator[Value]:
    """Every value of a values.yaml. A mapping without a comment inside is one value; others are only a way to their parts."""
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
    """The comment lines directly above a key."""
    first = key.start_mark.line
    comment: list[str] = []
    while first and lines[first - 1].strip().startswith("#"):
        first -= 1
        comment.insert(0, lines[first].strip().removeprefix("#").strip())
    return " ".join(comment)


def readme() -> str:
    """The whole file."""
    rows = ["| value | default | meaning |", "|---|---|---|"]
    rows += [
        f"| `{value.path}` | `{value.default}` | {value.description} |"
        for value in values((CHART / "values.yaml").read_text())
    ]
    return "\n".join([INTRODUCTION, *rows, ""])


def main() -> None:
    """Write the file, or compare with it."""
    path = CHART / "README.md"
    if "--check" not in sys.argv[1:]:
        path.write_text(readme())
    elif path.read_text() != readme():
        raise SystemExit(f"error: {path} is not made of values.yaml as it is; run make chart-readme")


if __name__ == "__main__":
    main()
