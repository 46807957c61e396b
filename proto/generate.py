"""Generate the Python stubs and their types from the protos: `python proto/generate.py OUTPUT_DIRECTORY`.

Uses the grpcio-tools of the lock, because stubs must not come from a newer generator than the runtime.
"""

from __future__ import annotations

import importlib.resources
import os
import shutil
import sys
from pathlib import Path

from grpc_tools import protoc

PROTO = Path(__file__).parent


def generate(output: Path) -> int:
    """Write `vilix/**/*_pb2*.py` and `.pyi` to `output`, replacing earlier ones. Return protoc's exit code."""
    # The type plugins are installed beside the interpreter, whose directory may not be on PATH.
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    shutil.rmtree(output / "vilix", ignore_errors=True)
    output.mkdir(parents=True, exist_ok=True)
    options = [f"--{plugin}_out={output}" for plugin in ("python", "grpc_python")]
    options += [f"--{plugin}_out=quiet:{output}" for plugin in ("mypy", "mypy_grpc")]
    sources = sorted(str(path.relative_to(PROTO)) for path in PROTO.glob("vilix/**/*.proto"))
    well_known = importlib.resources.files("grpc_tools") / "_proto"
    code: int = protoc.main(["protoc", f"--proto_path={PROTO}", f"--proto_path={well_known}", *options, *sources])
    for package in (output / "vilix").iterdir():
        # Tells type checkers to use the types beside the code (PEP 561).
        (package / "py.typed").touch()
    return code


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(f"usage: python {sys.argv[0]} OUTPUT_DIRECTORY")
    sys.exit(generate(Path(sys.argv[1])))
