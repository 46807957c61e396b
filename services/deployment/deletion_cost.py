"""Tells Kubernetes which pods of a pool should be removed first: those with the fewest open requests.

`python -m services.deployment.deletion_cost` runs beside the pools that are scaled. It reads how many requests each
worker runs from its metrics, and writes the annotation `controller.kubernetes.io/pod-deletion-cost`. Pods that serve
have no access to the Kubernetes API; this process has, and serves nothing.
"""

from __future__ import annotations

import json
import logging
import os
import re
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

from services.deployment import kubernetes_api
from services.deployment.kubernetes_api import MERGE_PATCH, TIMEOUT_SECONDS, KubernetesApi

ANNOTATION: Final = "controller.kubernetes.io/pod-deletion-cost"
_PODS: Final = "api/v1"
_RUNNING: Final = re.compile(
    r"^(?:vilix_worker_requests_in_flight|vilix_embeddings_requests_in_flight)\{[^}]*\} (?P<count>\S+)$", re.MULTILINE
)
_log: Final = logging.getLogger(__name__)


@dataclass(frozen=True)
class Pod:
    """A running pod of a pool."""

    name: str
    address: str
    cost: int | None
    """The cost in its annotation, if it has one."""


def cost_of(running: int) -> int:
    """Return the cost of a pod with so many running requests.

    It changes in powers of two, because each change is a write to the Kubernetes API: 0, 1, 2 to 3, 4 to 7 …
    """
    return 0 if running < 1 else 2 ** (running.bit_length() - 1)


def running_requests(metrics: str) -> int | None:
    """Return the number of requests that a worker runs, by its metrics. None if they do not say."""
    counts = [float(match["count"]) for match in _RUNNING.finditer(metrics)]
    return round(sum(counts)) if counts else None


@dataclass(frozen=True)
class Cluster:
    """The pods of a namespace, by the Kubernetes API."""

    api: KubernetesApi
    selector: str
    """Selects the pods by their labels."""

    def pods(self) -> list[Pod]:
        """Return the running pods that are not being removed already. Raises OSError."""
        query = urllib.parse.urlencode({"labelSelector": self.selector})
        items: list[Mapping[str, Any]] = json.loads(self.api.get(_PODS, f"pods?{query}"))["items"]
        return [
            _pod(item) for item in items if item["status"].get("podIP") and "deletionTimestamp" not in item["metadata"]
        ]

    def set_cost(self, pod: Pod, cost: int) -> None:
        """Write the annotation of a pod. Raises OSError."""
        patch = {"metadata": {"annotations": {ANNOTATION: str(cost)}}}
        self.api.patch(_PODS, f"pods/{pod.name}", json.dumps(patch).encode(), MERGE_PATCH)


def update(cluster: Cluster, *, metrics_port: int) -> None:
    """Read the load of all pods once, and write the costs that have changed. Raises OSError."""
    pods = cluster.pods()
    with ThreadPoolExecutor(max_workers=8) as executor:
        loads = executor.map(lambda pod: _load(pod, metrics_port), pods)
        changes = list(_changes(zip(pods, loads, strict=True)))
    for pod, cost in changes:
        try:
            cluster.set_cost(pod, cost)
        except urllib.error.HTTPError as error:
            # The pod is gone since it was listed.
            if error.code != 404:
                raise


def _changes(loads: Iterable[tuple[Pod, int | None]]) -> Iterable[tuple[Pod, int]]:
    for pod, running in loads:
        # A pod whose load is unknown keeps its cost: no data is never zero.
        if running is not None and cost_of(running) != pod.cost:
            yield pod, cost_of(running)


def _load(pod: Pod, port: int) -> int | None:
    host = f"[{pod.address}]" if ":" in pod.address else pod.address
    try:
        with urllib.request.urlopen(f"http://{host}:{port}/metrics", timeout=TIMEOUT_SECONDS) as response:
            return running_requests(response.read().decode())
    except OSError:
        return None


def _pod(item: Mapping[str, Any]) -> Pod:
    text = item["metadata"].get("annotations", {}).get(ANNOTATION, "")
    cost = int(text) if re.fullmatch(r"-?\d+", text) else None
    return Pod(item["metadata"]["name"], item["status"]["podIP"], cost)


def main() -> None:
    """Update the costs until the process is ended."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    cluster = Cluster(kubernetes_api.from_environment(), selector=os.environ["VILIX_POD_SELECTOR"])
    interval, metrics_port = float(os.environ["VILIX_INTERVAL_SECONDS"]), int(os.environ["VILIX_METRICS_PORT"])
    while True:
        try:
            update(cluster, metrics_port=metrics_port)
        except OSError as error:
            _log.warning("the costs were not updated: %s", error)
        time.sleep(interval)


if __name__ == "__main__":
    main()
