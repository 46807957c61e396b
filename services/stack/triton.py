"""The Triton server of the wheel nvidia-pytriton, started directly."""

from __future__ import annotations

import importlib.util
import os
import re
import secrets
import shutil
import stat
import sys
import sysconfig
from pathlib import Path
from typing import Final

ADDRESS: Final = "127.0.0.1"
TRACEBACK: Final = r"\n\nAt:"
_MODEL_FAILURE: Final = re.compile(
    r"failed to load '(?P<model>[^']+)' version \d+: \w+(?: \w+)?: (?:TritonModelException: )?(?P<message>.*?)\"?$"
)
LONGEST_SOCKET_PATH: Final = 107
_SOCKET_PORT: Final = 1
SHARED_MEMORY: Final = Path("/", "dev", "shm")
EXIT_SECONDS: Final = 30
"""The longest wait of the server for running requests when it stops."""


def install(directory: Path) -> None:
    """Copy the server and the Python backend, which cannot run from inside the wheel, to `directory`.

    An up-to-date copy is kept.

    Raises:
        FileNotFoundError: The wheel is not installed, or has no backend for this version of Python.
    """
    wheel = _wheel()
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    stub = wheel / "python_backend_stubs" / version / "triton_python_backend_stub"
    if not stub.exists():
        raise FileNotFoundError(f"nvidia-pytriton has no Python backend for Python {version}; use 3.11 or 3.12")
    backend = directory / "backends" / "python"
    backend.mkdir(parents=True, exist_ok=True)
    for source in (wheel / "backends" / "python").iterdir():
        _copy(source, backend / source.name)
    _copy(stub, backend / stub.name, executable=True)
    _copy(wheel / "bin" / "tritonserver", directory / "tritonserver", executable=True)


def command(
    *,
    directory: Path,
    repository: Path,
    http_port: int,
    grpc_port: int,
    metrics_port: int,
    python: Path = Path(sys.executable),
) -> tuple[list[str], dict[str, str]]:
    """Return the command line and environment of a server on 127.0.0.1 with all models of `repository`.

    `directory` is the one of `install`. The models import the packages of `python`. Relative paths are resolved against
    the current directory.
    """
    argv = [
        *_common(directory, repository),
        f"--http-address={ADDRESS}",
        f"--http-port={http_port}",
        f"--grpc-address={ADDRESS}",
        f"--grpc-port={grpc_port}",
        f"--metrics-address={ADDRESS}",
        f"--metrics-port={metrics_port}",
        f"--http-restricted-api={_shared_memory_lock()}",
    ]
    return argv, environment(python)


def private_command(
    *, directory: Path, repository: Path, socket: Path, memory_prefix: str
) -> tuple[list[str], dict[str, str]]:
    """Return the command line and environment of a server that listens only on `endpoint(socket)`.

    Only users who can read the socket's directory can reach it. The names of its shared memory begin with
    `memory_prefix`: see `remove_shared_memory`.
    """
    argv = [
        *_common(directory, repository),
        "--allow-http=false",
        "--allow-metrics=false",
        f"--grpc-address=unix:{socket}",
        # Triton appends the port to every address, also to the one of a socket.
        f"--grpc-port={_SOCKET_PORT}",
        f"--backend-config=python,shm-region-prefix-name={memory_prefix}",
    ]
    return argv, environment()


def endpoint(socket: Path) -> str:
    """Return the address at which clients reach the server of `private_command`."""
    return f"unix:{socket}:{_SOCKET_PORT}"


def fits(socket: Path) -> bool:
    """Whether the path is short enough for a Unix socket."""
    return len(os.fsencode(f"{socket}:{_SOCKET_PORT}")) <= LONGEST_SOCKET_PATH


def remove_shared_memory(memory_prefix: str) -> None:
    """Remove the shared memory of a killed server. Otherwise each kill would leave a megabyte or more behind."""
    for region in SHARED_MEMORY.glob(f"{memory_prefix}*"):
        region.unlink(missing_ok=True)


def _common(directory: Path, repository: Path) -> list[str]:
    return [
        str(directory.absolute() / "tritonserver"),
        f"--model-repository={repository.absolute()}",
        f"--backend-directory={directory.absolute() / 'backends'}",
        "--model-control-mode=none",
        "--disable-auto-complete-config",
        "--allow-gpu-metrics=false",
        # Clients send keepalive pings during calls that are silent for a long time.
        "--grpc-http2-min-recv-ping-interval-without-data=5000",
        f"--grpc-restricted-protocol={_shared_memory_lock()}",
        f"--exit-timeout-secs={EXIT_SECONDS}",
        "--log-info=false",
    ]


def _shared_memory_lock() -> str:
    """Disable the shared-memory protocols, which Triton cannot omit, by requiring a random header value for them."""
    return f"shared-memory:unused={secrets.token_hex(16)}"


def environment(python: Path = Path(sys.executable)) -> dict[str, str]:
    """Return the environment variables of a server whose models run in `python`'s environment."""
    site = _wheel().parent.parent
    # The stub is linked with libpython: the base interpreter's directory comes first, so that the patch levels agree.
    libraries = [
        sysconfig.get_config_var("LIBDIR"),
        str(site / "nvidia_pytriton.libs"),
        os.environ.get("LD_LIBRARY_PATH"),
    ]
    return {
        "LD_LIBRARY_PATH": ":".join(filter(None, libraries)),
        # The stub ignores PYTHONPATH, and imports the packages of the first python3 on PATH.
        "PATH": f"{python.parent}:{os.environ.get('PATH', os.defpath)}",
    }


def explain(log: str) -> str:
    """Return in one line why Triton did not start or has stopped, from the text of its log."""
    for line in reversed(log.splitlines()):
        failed = _MODEL_FAILURE.search(line)
        if failed:
            # A Python traceback follows the message, with its line ends escaped.
            return f"model {failed['model']}: {failed['message'].partition(TRACEBACK)[0]}"
    errors = [line for line in log.splitlines() if line.startswith(("E", "error:"))]
    return (errors or log.splitlines() or [""])[-1]


def _wheel() -> Path:
    spec = importlib.util.find_spec("pytriton")
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError("nvidia-pytriton, which contains the Triton server, is not installed")
    return Path(spec.submodule_search_locations[0]) / "tritonserver"


def _copy(source: Path, target: Path, *, executable: bool = False) -> None:
    theirs = source.stat()
    if not target.exists() or (target.stat().st_size, int(target.stat().st_mtime)) != (
        theirs.st_size,
        int(theirs.st_mtime),
    ):
        # Renamed into place, so that a running server keeps its open file.
        temporary = target.with_name(target.name + ".new")
        shutil.copy2(source, temporary)
        temporary.replace(target)
    if executable:
        target.chmod(target.stat().st_mode | stat.S_IXUSR)
