"""Starts pools when their weights have been downloaded.

`python -m services.deployment.pool_start` runs after an installation or upgrade that downloads weights. The Deployments
of such pools are paused, so that none of their pods holds a GPU before. This process waits for the Jobs of the
downloads, resumes the Deployments, and ends: nothing that serves depends on it.
"""

from __future__ import annotations

import json
import logging
import os
import time
import urllib.error
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from services.deployment import kubernetes_api
from services.deployment.kubernetes_api import JSON_PATCH, KubernetesApi

ANNOTATION: Final = "vilix/weights-directory"
"""The annotation of a Deployment that names the weights of its pods."""
REMINDER_SECONDS: Final = 60.0
"""Time between two lines about the same wait."""
_REJECTED: Final = 422
"""The status of a patch with a test that fails."""
_log: Final = logging.getLogger(__name__)


@dataclass(frozen=True)
class WaitingPool:
    """A pool whose Deployment is paused."""

    deployment: str
    weights: str
    """The directory that the download fills."""
    job: str
    """The Job of the download."""


def start_complete(api: KubernetesApi, pools: Iterable[WaitingPool]) -> dict[WaitingPool, str]:
    """Start the pools whose download is complete, and return for each of the others what it waits for."""
    waiting = {}
    for pool in pools:
        try:
            reason = _reason_to_wait(api, pool)
            if not reason:
                _resume(api, pool)
        except OSError as error:
            reason = f"the Kubernetes API: {error}"
        if reason:
            waiting[pool] = reason
    return waiting


def _reason_to_wait(api: KubernetesApi, pool: WaitingPool) -> str:
    try:
        job: Mapping[str, Any] = json.loads(api.get("apis/batch/v1", f"jobs/{pool.job}"))
    except urllib.error.HTTPError as error:
        # Helm creates the Jobs in any order.
        if error.code != 404:
            raise
        return f"the Job {pool.job}, which does not exist"
    conditions = [one["type"] for one in job.get("status", {}).get("conditions", ()) if one["status"] == "True"]
    if "Complete" in conditions:
        return ""
    if "Failed" in conditions:
        return f"the Job {pool.job}, which has failed: its log says why"
    return f"the Job {pool.job}"


def _resume(api: KubernetesApi, pool: WaitingPool) -> None:
    """Resume the Deployment, if it is still paused for these weights.

    The field is removed, not set to false: nobody owns it then, so that Helm may set it again (server-side apply).
    """
    annotation = ANNOTATION.replace("/", "~1")
    patch = [
        {"op": "test", "path": f"/metadata/annotations/{annotation}", "value": pool.weights},
        {"op": "test", "path": "/spec/paused", "value": True},
        {"op": "remove", "path": "/spec/paused"},
    ]
    try:
        api.patch("apis/apps/v1", f"deployments/{pool.deployment}", json.dumps(patch).encode(), JSON_PATCH)
    except urllib.error.HTTPError as error:
        if error.code not in (_REJECTED, 404):
            raise
        _log.info("%s does not wait for %s any more", pool.deployment, pool.weights)
    else:
        _log.info("%s starts: %s is complete", pool.deployment, pool.weights)


def main() -> None:
    """Start all pools, and end."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    api = kubernetes_api.from_environment()
    waiting = {WaitingPool(**pool): "" for pool in json.loads(os.environ["VILIX_POOLS"])}
    interval = float(os.environ["VILIX_INTERVAL_SECONDS"])
    noted: dict[WaitingPool, str] = {}
    reminded = time.monotonic()
    while waiting := start_complete(api, waiting):
        if waiting != noted or time.monotonic() - reminded >= REMINDER_SECONDS:
            for pool, reason in waiting.items():
                _log.info("%s waits for %s", pool.deployment, reason)
            noted, reminded = waiting, time.monotonic()
        time.sleep(interval)


if __name__ == "__main__":
    main()
