"""A stand-in for the kubelet, which reports how full volumes are; run as a program with PORT, DIRECTORY and CLAIM.

A kubelet needs a cluster. The volume is real: a file system of one megabyte, which only this program's mount namespace
has, and whose space is reported under the names of the kubelet's metrics.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx
from prometheus_client import REGISTRY, start_http_server
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from services.stack.ports import LOOPBACK, free_ports
from tests.support.prometheus import NAMESPACE
from tests.support.repository import ROOT
from tests.support.requirement import unmet
from tests.support.system_packages import require
from tests.support.waits import block_until

_MEGABYTE: Final = 2**20
_NAMESPACES: Final = (("--user", "--map-root-user", "--mount"), ("--mount",))
"""Arguments of `unshare` for a program that may mount something: for any user, and for root where the first fails."""


@dataclass(frozen=True)
class Volume:
    """A small volume, and the address of the kubelet that reports it."""

    kubelet: str
    directory: Path

    def fill(self) -> None:
        """Write a file that leaves a twentieth of the space."""
        (self.directory / "file").write_bytes(bytes(_MEGABYTE * 19 // 20))

    def clear(self) -> None:
        """Remove the file."""
        (self.directory / "file").unlink()


@contextlib.contextmanager
def small_volume(directory: Path, *, claim: str) -> Iterator[Volume]:
    """Mount a small volume of the claim at `directory`, and run the kubelet that reports it."""
    directory.mkdir()
    (port,) = free_ports(1)
    kubelet = f"{LOOPBACK}:{port}"
    program = [sys.executable, "-m", "tests.support.kubelet", str(port), str(directory), claim]
    process = subprocess.Popen([*_unshare(directory), *program], cwd=ROOT)
    try:
        block_until(lambda: _reports(process, kubelet), what="the kubelet reports the volume")
        yield Volume(kubelet, Path(f"/proc/{process.pid}/root{directory}"))
    finally:
        process.kill()
        process.wait(10)


def _unshare(directory: Path) -> Sequence[str]:
    """Return the command that lets a program mount something at `directory`. Without one: see `unmet`."""
    unshare, mount = require("unshare", package="util-linux"), _mount(directory)
    commands = [[unshare, *arguments] for arguments in _NAMESPACES]
    tried = [subprocess.run([*command, *mount], capture_output=True, text=True, check=False) for command in commands]
    allowed = [command for command, result in zip(commands, tried, strict=True) if result.returncode == 0]
    if not allowed:
        errors = " ".join(result.stderr.strip() for result in tried)
        unmet(f"no volume can be mounted; allow user namespaces, or be root with CAP_SYS_ADMIN: {errors}")
    return allowed[0]


def _mount(directory: Path) -> Sequence[str]:
    return [require("mount", package="mount"), "-t", "tmpfs", "-o", f"size={_MEGABYTE}", "tmpfs", str(directory)]


def _reports(process: subprocess.Popen[bytes], kubelet: str) -> bool:
    assert process.poll() is None, "the kubelet has ended"
    with contextlib.suppress(httpx.TransportError):
        return httpx.get(f"http://{kubelet}/metrics").is_success
    return False


class _Volumes(Collector):
    """The space of one volume."""

    def __init__(self, directory: Path, claim: str) -> None:
        self._directory: Final = directory
        self._labels: Final = {"namespace": NAMESPACE, "persistentvolumeclaim": claim}

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Yield the space that is left, and all space."""
        space = os.statvfs(self._directory)
        for name, blocks in (("available", space.f_bavail), ("capacity", space.f_blocks)):
            family = GaugeMetricFamily(f"kubelet_volume_stats_{name}_bytes", name, labels=[*self._labels])
            family.add_metric([*self._labels.values()], blocks * space.f_frsize)
            yield family


def main() -> None:
    """Mount the volume, and report it until the process is killed."""
    port, directory, claim = sys.argv[1:]
    subprocess.run(_mount(Path(directory)), check=True)
    REGISTRY.register(_Volumes(Path(directory), claim))
    _, thread = start_http_server(int(port), LOOPBACK)
    thread.join()


if __name__ == "__main__":
    main()
