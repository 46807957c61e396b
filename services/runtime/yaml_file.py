"""Reads a YAML file into a pydantic model, with errors that name the line of the file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import yaml
from pydantic import BaseModel, ValidationError

M = TypeVar("M", bound=BaseModel)


def read(path: Path, into: type[M]) -> M:
    """Read the file at `path` as a model of the class `into`.

    Raises OSError, and ValueError, whose message is one line and names the line of the file, for an unknown key, an
    invalid value and a duplicate key. YAML's reader would silently take the last of two equal keys.
    """
    text = path.read_text()
    try:
        _reject_duplicates(path, yaml.compose(text, yaml.SafeLoader))
        return into.model_validate(yaml.safe_load(text))
    except yaml.YAMLError as error:
        raise ValueError(f"{path.name} is not YAML: {' '.join(str(error).split())}") from None
    except ValidationError as error:
        problem = error.errors()[0]
        key = ".".join(str(part) for part in problem["loc"]) or "the file"
        line = _line(yaml.compose(text, yaml.SafeLoader), problem["loc"])
        value = "" if problem["type"] == "missing" else f" (it is {problem['input']!r})"
        raise ValueError(f"{path.name}, line {line}: {key}: {problem['msg']}{value}") from None


def _reject_duplicates(path: Path, root: yaml.Node | None) -> None:
    waiting, visited = [root], set[int]()
    while waiting:
        node = waiting.pop()
        # An alias is the same node as its anchor, so that there may be cycles.
        if node is None or id(node) in visited:
            continue
        visited.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            waiting += node.value
        elif isinstance(node, yaml.MappingNode):
            lines: dict[str, int] = {}
            for key, value in node.value:
                line = key.start_mark.line + 1
                if isinstance(key, yaml.ScalarNode):
                    if key.value in lines:
                        first = lines[key.value]
                        raise ValueError(f"{path.name}, line {line}: {key.value}: it is there already, in line {first}")
                    lines[key.value] = line
                waiting.append(value)


def _line(node: yaml.Node | None, location: Sequence[int | str]) -> int:
    """Return the line, from 1, of the value at `location`, or of the innermost value around it that exists."""
    line = 1 if node is None else node.start_mark.line + 1
    for part in location:
        if isinstance(node, yaml.MappingNode):
            matches = [(key, value) for key, value in node.value if key.value == str(part)]
            if not matches:
                break
            line, node = matches[0][0].start_mark.line + 1, matches[0][1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            line = node.start_mark.line + 1
        else:
            break
    return line
