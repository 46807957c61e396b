"""A real Prometheus, which scrapes and evaluates every second."""

from __future__ import annotations

import contextlib
import json
import math
import subprocess
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
import yaml

from services.stack.ports import LOOPBACK, free_ports
from tests.support.system_packages import require
from tests.support.waits import until

NAMESPACE: Final = "ai"
"""The label that Prometheus adds in a cluster; that of the manifests that tests render."""
VILIX: Final = "vilix"
KUBELET: Final = "kubelet"
_JOBS: Final[Mapping[str, Mapping[str, str]]] = {
    VILIX: {"namespace": NAMESPACE, "service": "vilix-gateway-metrics", "endpoint": "metrics"},
    KUBELET: {},
}
"""The jobs, and the labels of their targets as the Prometheus operator adds them.

`service` is the name of the Kubernetes Service. The kubelet states the namespace of a volume, which is not its own.
"""


@dataclass(frozen=True)
class Sample:
    """A series of the result of a query, and its value."""

    labels: Mapping[str, str]
    value: float


@dataclass(frozen=True)
class Prometheus:
    """A running Prometheus."""

    client: httpx.AsyncClient
    directory: Path

    def scrape(self, targets: Sequence[str], *, job: str = VILIX) -> None:
        """Scrape HOST:PORT of each of these targets from now on, and no others for this job."""
        _write_targets(self.directory, targets, job)

    async def get(self, path: str, **parameters: str) -> Any:
        """Return the data of an endpoint of its API."""
        answer = (await self.client.get(f"/api/v1/{path}", params=parameters)).json()
        assert answer["status"] == "success", answer
        return answer["data"]

    async def query(self, expression: str) -> list[Sample]:
        """Return the series of an expression now, without those that are no number."""
        result = (await self.get("query", query=expression))["result"]
        samples = [Sample(series["metric"], float(series["value"][1])) for series in result]
        return [sample for sample in samples if not math.isnan(sample.value)]

    async def firing(self) -> list[dict[str, str]]:
        """Return the labels of the alerts that fire."""
        alerts = (await self.get("alerts"))["alerts"]
        return [alert["labels"] for alert in alerts if alert["state"] == "firing"]

    async def until_firing(self, *names: str, seconds: float = 30) -> None:
        """Wait until all these alerts fire."""

        async def fire() -> bool:
            return {alert["alertname"] for alert in await self.firing()} >= set(names)

        await until(fire, seconds, f"{', '.join(names)} fire")

    async def until_quiet(self, *names: str, seconds: float = 30) -> None:
        """Wait until none of these alerts fires."""

        async def are_quiet() -> bool:
            return not {alert["alertname"] for alert in await self.firing()} & set(names)

        await until(are_quiet, seconds, f"{', '.join(names)} do not fire")


@contextlib.asynccontextmanager
async def running_prometheus(
    directory: Path, targets: Sequence[str], groups: Sequence[Mapping[str, Any]]
) -> AsyncIterator[Prometheus]:
    """Run a Prometheus that scrapes HOST:PORT of each target, and evaluates groups of rules."""
    with _started(directory, targets, groups) as (address, process, log):
        async with httpx.AsyncClient(base_url=f"http://{address}", timeout=10) as client:

            async def is_ready() -> bool:
                assert process.poll() is None, log.read_text()
                with contextlib.suppress(httpx.TransportError):
                    return (await client.get("/-/ready")).status_code == 200
                return False

            await until(is_ready, what="Prometheus is ready")
            yield Prometheus(client, directory)


def _write_targets(directory: Path, targets: Sequence[str], job: str) -> None:
    """Write the targets of a job, whose file Prometheus reads again when it changes."""
    new = directory / f"{job}.new"
    new.write_text(json.dumps([{"targets": [*targets], "labels": _JOBS[job]}]))
    new.replace(directory / f"{job}.json")


@contextlib.contextmanager
def _started(
    directory: Path, targets: Sequence[str], groups: Sequence[Mapping[str, Any]]
) -> Iterator[tuple[str, subprocess.Popen[bytes], Path]]:
    """Yield the address of a Prometheus that may not be ready yet, its process and its log."""
    program = require("prometheus", package="prometheus")
    directory.mkdir()
    (directory / "rules.yaml").write_text(yaml.safe_dump({"groups": list(groups)}))
    _write_targets(directory, targets, VILIX)
    _write_targets(directory, [], KUBELET)
    jobs = [{"job_name": job, "file_sd_configs": [{"files": [f"{job}.json"]}]} for job in _JOBS]
    seconds = {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}
    configuration = {"global": seconds, "rule_files": ["rules.yaml"], "scrape_configs": jobs}
    (directory / "prometheus.yaml").write_text(yaml.safe_dump(configuration))
    address = f"{LOOPBACK}:{free_ports(1)[0]}"
    command = [
        program,
        f"--config.file={directory / 'prometheus.yaml'}",
        f"--storage.tsdb.path={directory / 'data'}",
        f"--web.listen-address={address}",
        "--enable-feature=exemplar-storage",
        "--log.level=warn",
    ]
    log = directory / "prometheus.log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
    try:
        yield address, process, log
    finally:
        process.kill()
        process.wait(10)
