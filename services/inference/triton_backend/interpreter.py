"""Finds the Python interpreter for processes that an engine starts. Inside Triton, the running program is another."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path


def python() -> str:
    """Return the path of the interpreter with this process's version and packages. Raises OSError without one."""
    name = f"python{sys.version_info.major}.{sys.version_info.minor}"
    directories = [Path(sys.prefix, "bin"), Path(sys.exec_prefix, "bin"), Path(sys.base_prefix, "bin")]
    if Path(sys.executable).name.startswith("python"):
        directories.insert(0, Path(sys.executable).parent)
    for directory in directories:
        if os.access(directory / name, os.X_OK):
            return str(directory / name)
    executable = shutil.which(name) or shutil.which("python3")
    if executable is None:
        raise OSError(f"there is no {name} to start processes of the engine with")
    return executable
