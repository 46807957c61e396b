"""Check that a machine can run the local stack. Uses the standard library only, because nothing is installed yet.

As a script it prints the first missing requirement with what to install, and exits with 1.
"""

import importlib.util
import platform
import shutil
import sys
import sysconfig
import typing
from pathlib import Path

PYTHONS = ((3, 11), (3, 12))
GLIBC = (2, 35)
DISK_GIB = 3


def lacks() -> typing.Iterator[str]:
    """Yield a sentence for each missing requirement, the most fundamental one first."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        yield f"the local stack needs Linux on x86-64, and this is {platform.system()} on {platform.machine()}"
    if sys.implementation.name != "cpython" or sys.version_info[:2] not in PYTHONS:
        yield (
            f"Triton's Python backend needs CPython 3.11 or 3.12, and {sys.executable} is {platform.python_version()}; "
            "install python3.11 or python3.12, or name one: make PYTHON=/path/to/python3.12 …"
        )
    yield from _system_libraries()
    if importlib.util.find_spec("venv") is None or importlib.util.find_spec("ensurepip") is None:
        yield f"Python's venv module is missing; install it (Debian: apt-get install python{_python()}-venv)"
    free = shutil.disk_usage(".").free / 1024**3
    if free < DISK_GIB and not Path(".venv").exists():
        yield f"the installation needs {DISK_GIB} GiB of free disk space here, and {free:.1f} GiB are free"


def _system_libraries() -> typing.Iterator[str]:
    library, version = platform.libc_ver()
    if library != "glibc" or tuple(int(part) for part in version.split(".")[:2]) < GLIBC:
        yield (
            f"Triton's wheel needs glibc 2.35 or newer, and this system has {library} {version}; "
            "use Debian 12, Ubuntu 22.04 or newer"
        )
    shared = f"libpython{_python()}.so.1.0"
    directories = (sysconfig.get_config_var("LIBDIR") or "", "/usr/lib/x86_64-linux-gnu", "/usr/lib64")
    if not any((Path(directory) / shared).exists() for directory in directories if directory):
        yield (
            f"Triton's Python backend needs {shared}, and {sys.executable} has none; install it "
            f"(Debian: apt-get install libpython{_python()}), or build Python with --enable-shared"
        )


def _python() -> str:
    return ".".join(str(part) for part in sys.version_info[:2])


if __name__ == "__main__":
    for sentence in lacks():
        print(f"error: {sentence}", file=sys.stderr)
        sys.exit(1)
