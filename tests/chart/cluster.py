"""A cluster to install the chart into: a real Helm, a stand-in for the Kubernetes API, and its controllers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from services.deployment.kubernetes_api import KubernetesApi
from services.deployment.pool_start import WaitingPool, start_complete
from tests.support.helm import CHART, Manifest, environment, run_helm, value_arguments
from tests.support.kubernetes_api import NAMESPACE, KubernetesServer, running_kubernetes


@dataclass
class Cluster:
    """What a test does to a cluster, and what runs in it."""

    server: KubernetesServer
    directory: Path
    server_side: bool
    """How Helm changes objects: by server-side apply, as Helm 4 does, or by three-way merges, as Helm 3 did."""
    chart: Path = CHART
    pods: dict[str, tuple[int, Manifest]] = field(default_factory=dict)
    """The number of pods of each Deployment and their template."""
    fewest: dict[str, int] = field(default_factory=dict)
    """The fewest pods that a Deployment has had since it had any."""

    def helm(self, *arguments: str) -> str:
        """Run a command of helm that is expected to succeed, and then the controllers. Returns its output."""
        mode = f"--server-side={str(self.server_side).lower()}"
        result = run_helm(*arguments, "--namespace", NAMESPACE, mode, kubeconfig=self.server.kubeconfig(self.directory))
        assert result.returncode == 0, result.stderr
        self.reconcile()
        return result.stdout

    def install(self, *values: str, sets: list[str] | None = None) -> None:
        """Install the release, or upgrade it if there is one."""
        arguments = value_arguments(*values, sets=sets or [])
        self.helm("upgrade", "--install", "vilix", str(self.chart), "--disable-openapi-validation", *arguments)

    def rollback(self, revision: int) -> None:
        """Roll the release back."""
        self.helm("rollback", "vilix", str(revision))

    def deployment(self, name: str) -> Manifest:
        """Return a Deployment."""
        return self.server.get("deployments", name)

    def is_serving(self, name: str) -> bool:
        """Return whether a Deployment has pods, all of its present template."""
        return name in self.pods and self.pods[name][1] == self.deployment(name)["spec"]["template"]

    def reconcile(self) -> None:
        """Do what the controller of Deployments does: pkg/controller/deployment of Kubernetes.

        A paused Deployment gets no ReplicaSet for a new template; those that it has are scaled.
        """
        for name in self.server.names("deployments"):
            found = self.deployment(name)
            template = found["spec"]["template"]
            count = found["spec"].get("replicas", 1)
            if not found["spec"].get("paused"):
                self.pods[name] = (count, json.loads(json.dumps(template)))
            elif name in self.pods:
                self.pods[name] = (count, self.pods[name][1])
            if name in self.pods:
                self.fewest[name] = min(count, self.fewest.get(name, count))
            found["status"] = {"updatedReplicas": count} if self.is_serving(name) else {}

    def complete_downloads(self) -> None:
        """Let all downloads end."""
        for name in self.server.names("jobs"):
            if "-weights-" in name:
                self.server.get("jobs", name)["status"] = {"conditions": [{"type": "Complete", "status": "True"}]}

    def start_jobs(self) -> list[Manifest]:
        """Return the Jobs that start pools."""
        return [self.server.get("jobs", name) for name in self.server.names("jobs") if name.startswith("vilix-start-")]

    def run_start_job(self) -> None:
        """Run the program of the Job once. If it has ended, it is removed, as Kubernetes does after some seconds."""
        (job,) = self.start_jobs()
        (container,) = job["spec"]["template"]["spec"]["containers"]
        token = self.directory / "token"
        token.write_text("a token")
        api = KubernetesApi(self.server.url, environment(container)["VILIX_NAMESPACE"], token_file=token)
        pools: list[dict[str, Any]] = json.loads(environment(container)["VILIX_POOLS"])
        waiting = start_complete(api, [WaitingPool(**pool) for pool in pools])
        self.reconcile()
        if not waiting and "ttlSecondsAfterFinished" in job["spec"]:
            del self.server.objects["jobs", job["metadata"]["name"]]


@contextmanager
def running_cluster(directory: Path, *, server_side: bool, chart: Path = CHART) -> Iterator[Cluster]:
    """Run an empty cluster for the time of a block."""
    with running_kubernetes() as server:
        yield Cluster(server, directory, server_side, chart)
