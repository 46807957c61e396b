"""Reads a YAML file into a pydantic model, with errors that name the line of the file."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import yaml
from pydantic import BaseModel, ValidationError

M = TypeVar("M", bound=BaseModel)


def read(path: Path, into: type[M]) -> M:
    """Read the file at `path` as a model of the class `into`.

    Raises OSError, and ValueError, whose message is one line and names the line of the file, for an unknown key, an
    invalid value and a duplicate key. YAML's reader would silently take the last of two equal keys. Other malformed
    files are a ValueError without a line.
    """
    text = path.read_text()
    try:
        loader = _Loader(text)
        loader.name = path.name
        root = loader.get_single_node()
        return into.model_validate(None if root is None else loader.construct_document(root))
    except yaml.YAMLError as error:
        raise ValueError(f"{path.name} is not YAML: {' '.join(str(error).split())}") from None
    except RecursionError:
        raise ValueError(f"{path.name} is nested too deeply") from None
    except (IndexError, AttributeError, KeyError, TypeError, OverflowError) as error:
        # PyYAML's constructors raise these for values that do not fit their tags, such as an empty `!!int`.
        raise ValueError(f"{path.name} has a value that does not fit its tag: {error}") from None
    except ValidationError as error:
        problem = error.errors()[0]
        key = ".".join(str(part) for part in problem["loc"]) or "the file"
        value = "" if problem["type"] == "missing" else f" (it is {problem['input']!r})"
        raise ValueError(f"{path.name}, line {_line(root, problem['loc'])}: {key}: {problem['msg']}{value}") from None


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, except that a duplicate key is an error, and a number that YAML 1.2 reads otherwise."""

    def construct_number(self, node: yaml.ScalarNode) -> int | float:
        """Return a number. Raises ValueError for 0100, which is octal in YAML 1.1, and for 1:30, which has base 60."""
        if re.match(r"[-+]?0[0-9_]+$", node.value) or ":" in node.value:
            raise ValueError(f"{self.name}, line {node.start_mark.line + 1}: {node.value} is not a decimal number")
        is_integer = node.tag.endswith(":int")
        number: int | float = self.construct_yaml_int(node) if is_integer else self.construct_yaml_float(node)
        return number

    def compose_mapping_node(self, anchor: dict[str, yaml.Node]) -> yaml.MappingNode:
        """Compose a mapping. Raises ValueError for a duplicate key."""
        mapping = super().compose_mapping_node(anchor)
        lines: dict[str, int] = {}
        for key, _ in mapping.value:
            line = key.start_mark.line + 1
            if isinstance(key, yaml.ScalarNode):
                if key.value in lines:
                    first = lines[key.value]
                    raise ValueError(f"{self.name}, line {line}: {key.value}: it is there already, in line {first}")
                lines[key.value] = line
        return mapping


for _tag in ("int", "float"):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_tag}", _Loader.construct_number)


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
