"""The arguments that versions of vLLM accept, as their own sources declare them.

`vllm_arguments.yaml` was written from the wheels of the vLLM project, which nothing here installs, because the CUDA
build needs gigabytes: `pip download --no-deps vllm==VERSION`, then `python -m tests.support.vllm_arguments WHEEL…`.
"""

from __future__ import annotations

import ast
import hashlib
import sys
import zipfile
from pathlib import Path
from typing import Any, Final

import yaml

LIST: Final = Path(__file__).with_suffix(".yaml")
CLASSES: Final = {
    "AsyncEngineArgs": ("vllm/engine/arg_utils.py", ["EngineArgs", "AsyncEngineArgs"]),
    "SpeculativeConfig": ("vllm/config/speculative.py", ["SpeculativeConfig"]),
    "StructuredOutputsConfig": ("vllm/config/structured_outputs.py", ["StructuredOutputsConfig"]),
    "KVTransferConfig": ("vllm/config/kv_transfer.py", ["KVTransferConfig"]),
}
"""The file of each class in a wheel, and the classes there whose fields it has, its own included."""
CONFIGURATIONS: Final = {
    "speculative_config": "SpeculativeConfig",
    "structured_outputs_config": "StructuredOutputsConfig",
    "kv_transfer_config": "KVTransferConfig",
}
"""The classes of arguments that are mappings."""
ENGINES_OWN: Final = ("context_length", "max_queued", "model", "requires", "slots", "stall_seconds")
"""Arguments of the engine `vllm` that it does not pass on to vLLM under these names and with these values."""


def versions() -> dict[str, dict[str, Any]]:
    """Return the `source`, its `sha256`, and the `fields` by class of each listed version, the oldest version first."""
    listed: dict[str, dict[str, Any]] = yaml.safe_load(LIST.read_text())
    return listed


def unknown(arguments: dict[str, Any], version: str) -> set[str]:
    """Return the arguments of an engine, and keys of configurations among them, that a version does not have."""
    fields = versions()[version]["fields"]
    names = {name for name in arguments if name not in (*ENGINES_OWN, *fields["AsyncEngineArgs"])}
    for name, known in CONFIGURATIONS.items():
        names |= {f"{name}.{key}" for key in arguments.get(name) or {} if key not in fields[known]}
    return names


def read(wheel: Path) -> dict[str, Any]:
    """Return what `versions` has of the version in a wheel."""
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    with zipfile.ZipFile(wheel) as archive:
        fields = {name: _fields(archive.read(path).decode(), classes) for name, (path, classes) in CLASSES.items()}
    return {"source": wheel.name, "sha256": digest, "fields": fields}


def _fields(source: str, classes: list[str]) -> list[str]:
    """Return the public fields of dataclasses, sorted."""
    return sorted(
        statement.target.id
        for node in ast.parse(source).body
        if isinstance(node, ast.ClassDef) and node.name in classes
        for statement in node.body
        if isinstance(statement, ast.AnnAssign)
        and isinstance(statement.target, ast.Name)
        and not statement.target.id.startswith("_")
        and "ClassVar" not in ast.unparse(statement.annotation)
    )


def main(wheels: list[Path]) -> None:
    """Write the list from wheels."""
    found = {wheel.name.split("-")[1]: read(wheel) for wheel in wheels}
    head = "# Written by tests/support/vllm_arguments.py from the wheels that `source` names.\n"
    LIST.write_text(head + yaml.safe_dump(found, sort_keys=False, width=84, default_flow_style=None))


if __name__ == "__main__":
    main([Path(argument) for argument in sys.argv[1:]])
