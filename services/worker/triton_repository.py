"""Writes a model into a Triton model repository: its configuration, and the Python package that runs inside Triton."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Final

PROBE: Final = Path(__file__).with_name("triton_probe.py")
_ENTRY: Final = '''\
"""Written with this directory; the model itself is in the package beside this file."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from {package}.model import TritonPythonModel as TritonPythonModel
'''


def write_model(repository: Path, *, model_id: str, package: str, source: Path, configuration: str) -> Path:
    """Write `<repository>/<model_id>`, in place of an earlier one, and return it.

    `package` is the dotted name of the Python package in `source`, whose module `model` Triton loads; `configuration` is
    the text of config.pbtxt. A Triton that reads at the same time finds the earlier model, this one or none.
    """
    repository.mkdir(parents=True, exist_ok=True)
    model = repository / model_id
    # A hidden name is no model to Triton.
    with tempfile.TemporaryDirectory(prefix=".writing-", dir=repository) as temporary:
        fresh, old = Path(temporary) / "new", Path(temporary) / "old"
        _write(fresh, package, source, configuration)
        if model.exists():
            model.rename(old)
        fresh.rename(model)
    return model


def _write(directory: Path, package: str, source: Path, configuration: str) -> None:
    version = directory / "1"
    copy = version / Path(*package.split("."))
    shutil.copytree(source, copy, ignore=shutil.ignore_patterns("__pycache__"))
    for parent in copy.relative_to(version).parents:
        if parent.name:
            (version / parent / "__init__.py").touch()
    shutil.copy2(PROBE, version / "probe.py")
    (version / "model.py").write_text(_ENTRY.format(package=package))
    (directory / "config.pbtxt").write_text(configuration)
