"""Pods without Kubernetes: the processes of rendered manifests with their arguments, variables and timings.

This module replaces the kubelet.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import httpx
from grpc_health.v1 import health_pb2, health_pb2_grpc

from services.gateway.key_ring import new_key
from services.stack.ports import free_ports
from tests.support.helm import Manifest, containers, environment
from tests.support.repository import ROOT
from tests.support.waits import until

START_SECONDS = 100


@dataclass
class Pod:
    """The processes of one pod: sidecars first, the main container last."""

    manifest: Manifest
    directory: Path
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def pre_stop_seconds(self) -> float:
        return float(self._main["lifecycle"]["preStop"]["sleep"]["seconds"])

    @property
    def grace_seconds(self) -> float:
        return float(self._spec["terminationGracePeriodSeconds"])

    @property
    def _spec(self) -> Manifest:
        spec: Manifest = self.manifest["spec"]["template"]["spec"]
        return spec

    @property
    def _main(self) -> Manifest:
        main: Manifest = self._spec["containers"][0]
        return main

    def start_python(self, container: str, changes: Mapping[str, str]) -> None:
        """Start a container that runs a Python module, with its variables except for `changes`."""
        manifest = containers(self.manifest)[container]
        assert manifest["command"][0] == "python"
        mounted = {"VILIX_TOKEN_KEYS_FILE": self._token_keys()} if container == "gateway" else {}
        variables = {**os.environ, **environment(manifest), **mounted, **changes}
        self._start([sys.executable, *manifest["command"][1:]], variables, container)

    def start_triton(self, changes: Mapping[str, str], *, image: Path) -> None:
        """Start Triton with the CPU image's start program in `image`, and the pod's arguments except for `changes`."""
        arguments = containers(self.manifest)["triton"]["args"]
        names = [argument.partition("=")[0] for argument in arguments]
        assert changes.keys() <= set(names)
        arguments = [
            f"{name}={changes[name]}" if name in changes else a for name, a in zip(names, arguments, strict=True)
        ]
        self._start([str(image / "triton" / "start"), *arguments], os.environ, "triton")

    async def delete(self) -> float:
        """Stop the pod as the kubelet does, and return the seconds that it took.

        It is a failure if a process does not end by itself within the grace period.
        """
        began = time.monotonic()
        await asyncio.sleep(self.pre_stop_seconds)
        for process in reversed(self.processes):
            process.send_signal(signal.SIGTERM)
            left = began + self.grace_seconds - time.monotonic()
            code = await asyncio.to_thread(process.wait, max(left, 0))
            assert code == 0, f"{process.args} ended with {code}; see {self.directory}"
        return time.monotonic() - began

    def kill(self) -> None:
        """Kill all processes that still run."""
        for process in self.processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(10)

    def _token_keys(self) -> str:
        """Return the file that the pod mounts from the Secret of all gateways."""
        path = self.directory.parent / "token-keys"
        if not path.exists():
            path.write_text(new_key() + "\n")
        return str(path)

    def _start(self, argv: Sequence[str], variables: Mapping[str, str], name: str) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        with (self.directory / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(
                argv, cwd=ROOT, env=dict(variables), stdout=log, stderr=log, start_new_session=True
            )
        self.processes.append(process)


def ports(count: int) -> list[str]:
    """Reserve free ports for pods on the same machine."""
    return [str(port) for port in free_ports(count)]


async def until_http_ok(url: str) -> None:
    """Wait until a URL returns status 200, as an HTTP probe does."""
    async with httpx.AsyncClient() as http:

        async def is_ok() -> bool:
            with contextlib.suppress(httpx.TransportError):
                return (await http.get(url, timeout=5)).status_code == 200
            return False

        await until(is_ok, seconds=START_SECONDS)


async def until_serving(target: str) -> None:
    """Wait until a gRPC server reports that it is serving, as a gRPC probe does."""
    async with grpc.aio.insecure_channel(target) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)

        async def is_serving() -> bool:
            try:
                response = await stub.Check(health_pb2.HealthCheckRequest(), timeout=5, wait_for_ready=True)
            except grpc.aio.AioRpcError:
                return False
            return bool(response.status == health_pb2.HealthCheckResponse.SERVING)

        await until(is_serving, seconds=START_SECONDS)
