"""Reads a YAML file into a model, with errors that say where in the file they are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import yaml
from pydantic import BaseModel, ValidationError

M = TypeVar("M", bound=BaseModel)


def read(path: Path, into: type[M]) -> M:
    """Raises ValueError in one line, with the line of an unknown key or a value that does not fit, and OSError.

    A key that is there twice is refused too: YAML's reader would take the last one, and say nothing.
    """
    text = path.read_text()
    try:
        _reject_twice(path, yaml.compose(text, yaml.SafeLoader))
        return into.model_validate(yaml.safe_load(text))
    except yaml.YAMLError as error:
        raise ValueError(f"{path.name} is not YAML: {' '.join(str(error).split())}") from None
    except ValidationError as error:
        problem = error.errors()[0]
        key = ".".join(str(part) for part in problem["loc"]) or "the file"
        line = _line(yaml.compose(text, yaml.SafeLoader), problem["loc"])
        given = "" if problem["type"] == "missing" else f" (it is {problem['input']!r})"
        raise ValueError(f"{path.name}, line {line}: {key}: {problem['msg']}{given}") from None


def _reject_twice(path: Path, root: yaml.Node | None) -> None:
    left, seen = [root], set[int]()
    while left:
        node = left.pop()
        # An alias is the very node that it stands for.
        if node is None or id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            left += node.value
        elif isinstance(node, yaml.MappingNode):
            lines: dict[str, int] = {}
            for key, value in node.value:
                line = key.start_mark.line + 1
                if isinstance(key, yaml.ScalarNode):
                    if key.value in lines:
                        first = lines[key.value]
                        raise ValueError(f"{path.name}, line {line}: {key.value}: it is there already, in line {first}")
                    lines[key.value] = line
                left.append(value)


def _line(node: yaml.Node | None, location: Sequence[int | str]) -> int:
    """The line, from 1, of what is at `location`, or of the nearest thing around it."""
    line = 1 if node is None else node.start_mark.line + 1
    for part in location:
        if isinstance(node, yaml.MappingNode):
            found = [(key, value) for key, value in node.value if key.value == str(part)]
            if not found:
                break
            line, node = found[0][0].start_mark.line + 1, found[0][1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            line = node.start_mark.line + 1
        else:
            break
    return line
