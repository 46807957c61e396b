"""Reads the activity of gateways from their admin APIs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx2

from services.cli.failure import fail
from services.cli.stack_state import require_state

TOKEN_VARIABLE: Final = "VILIX_ADMIN_TOKEN"  # noqa: S105  # a name, and no token
_PATH: Final = "/admin/v1/activity"
_SECONDS: Final = 5.0


class UnreadableError(Exception):
    """A gateway's activity cannot be read. The message is one line."""


@dataclass(frozen=True)
class Gateways:
    """The admin APIs of a deployment's gateways."""

    urls: Sequence[str]
    token: str
    is_local: bool

    def read(self) -> dict[str, Any]:
        """Return the activity of all gateways together. Raises UnreadableError."""
        # The local stack is never behind a proxy.
        headers = {"Authorization": f"Bearer {self.token}"}
        with httpx2.Client(headers=headers, timeout=_SECONDS, trust_env=not self.is_local) as client:
            return merge([_read(client, url) for url in self.urls])


def find_gateways(urls: Sequence[str], state_dir: Path) -> Gateways:
    """Return the admin APIs at `urls`, or the one of the local stack if there are none."""
    if urls:
        token = os.environ.get(TOKEN_VARIABLE, "") or fail(
            f"set the variable {TOKEN_VARIABLE} to the admin API's token"
        )
        return Gateways([url.rstrip("/").removesuffix("/admin/v1") for url in urls], token, is_local=False)
    state = require_state(state_dir, otherwise="set --url to the admin API of a gateway")
    return Gateways([state["admin_url"]], state["admin_token"], is_local=True)


def merge(activities: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the activity of several gateways as one. They know the same workers, which are not counted twice."""
    models: dict[str, dict[str, Any]] = {}
    for activity in activities:
        for model in activity["models"]:
            known = models.setdefault(model["id"], {**model, "engines": []})
            known["available"] = known["available"] or model["available"]
            seen = {engine["worker"] for engine in known["engines"]}
            known["engines"] += [engine for engine in model["engines"] if engine["worker"] not in seen]
    requests = [request for activity in activities for request in activity["requests"]]
    return {
        "requests_total": sum(activity["requests_total"] for activity in activities),
        "requests": sorted(requests, key=lambda request: -request["seconds"]),
        "models": [models[name] for name in sorted(models)],
    }


def _read(client: httpx2.Client, url: str) -> dict[str, Any]:
    try:
        response = client.get(url + _PATH)
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        raise UnreadableError(f"the admin API at {url} cannot be reached: {error}") from None
    if response.status_code == httpx2.codes.UNAUTHORIZED:
        raise UnreadableError(f"the admin API at {url} does not accept the token of {TOKEN_VARIABLE}")
    if response.status_code != httpx2.codes.OK:
        raise UnreadableError(
            f"{url}{_PATH} returned status {response.status_code}; check that --url is an admin API (VILIX_ADMIN_PORT) "
            "of this version"
        )
    activity: dict[str, Any] = response.json()
    return activity
