"""`python -m services.stack.image DIRECTORY`: write the files of the CPU image that no Python package contains."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

from services.stack import model_import, triton
from services.stack.local_models import SMALL_MODEL


def prepare(directory: Path) -> None:
    """Write `triton/start`, which starts the server and passes its arguments on, and the small model in `weights/`."""
    server = (directory / "triton").absolute()
    triton.install(server)
    exports = "".join(f"export {name}={shlex.quote(value)}\n" for name, value in triton.environment().items())
    command = shlex.join([str(server / "tritonserver"), f"--backend-directory={server / 'backends'}"])
    start = server / "start"
    start.write_text(f'#!/bin/sh\n{exports}exec {command} "$@"\n')
    start.chmod(0o755)
    model_import.smollm2(directory / "weights" / SMALL_MODEL)


if __name__ == "__main__":
    prepare(Path(sys.argv[1]))
