"""Writes a model into a Triton model repository: its configuration, and the Python packages that run inside Triton."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

KIT: Final = Path(__file__).with_name("triton_kit")
KIT_NAME: Final = "services.worker.triton_kit"
PROBE: Final = Path(__file__).with_name("triton_probe.py")
_ENTRY: Final = '''\
"""Written with this directory; the model itself is in the package beside this file."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from {package}.model import TritonPythonModel as TritonPythonModel
'''
_CONFIGURATION: Final = """\
name: {name}
backend: "python"
parameters {{ key: "engine" value {{ string_value: {engine} }} }}
parameters {{ key: "engine_args" value {{ string_value: {engine_args} }} }}
{tensors}"""


def write_model(
    repository: Path,
    *,
    model_id: str,
    package: str,
    source: Path,
    tensors: str,
    engine: str,
    engine_args: Mapping[str, Any],
) -> Path:
    """Write `<repository>/<model_id>`, in place of an earlier one, and return it.

    `package` is the dotted name of the Python package in `source`, whose module `model` Triton loads. `tensors` are the
    lines of config.pbtxt about inputs, outputs, batches and instances. `engine_args` become JSON. A Triton that reads
    at the same time finds the earlier model, this one or none.
    """
    configuration = _CONFIGURATION.format(
        name=_quoted(model_id),
        engine=_quoted(engine),
        engine_args=_quoted(json.dumps(dict(engine_args))),
        tensors=tensors,
    )
    repository.mkdir(parents=True, exist_ok=True)
    model = repository / model_id
    # Triton ignores directories with hidden names.
    with tempfile.TemporaryDirectory(prefix=".writing-", dir=repository) as temporary:
        fresh, old = Path(temporary) / "new", Path(temporary) / "old"
        _write(fresh, package, source, configuration)
        if model.exists():
            model.rename(old)
        fresh.rename(model)
    return model


def _write(directory: Path, package: str, source: Path, configuration: str) -> None:
    version = directory / "1"
    _copy_package(source, version, package)
    _copy_package(KIT, version, KIT_NAME)
    shutil.copy2(PROBE, version / "probe.py")
    (version / "model.py").write_text(_ENTRY.format(package=package))
    (directory / "config.pbtxt").write_text(configuration)


def _copy_package(source: Path, root: Path, package: str) -> None:
    copy = root / Path(*package.split("."))
    shutil.copytree(source, copy, ignore=shutil.ignore_patterns("__pycache__"))
    for parent in copy.relative_to(root).parents:
        if parent.name:
            (root / parent / "__init__.py").touch()


def _quoted(text: str) -> str:
    # Text format's escapes for printable ASCII are JSON's; json.dumps of a JSON text leaves nothing else.
    return json.dumps(text)
