"""The checks of `vilix doctor`."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

import httpx2

from services.cli.stack_state import read_state
from services.deployment import rendering
from services.gateway.settings import GatewaySettings
from services.stack import default_model, local_weights, machine
from services.stack.exclusive import running_pid
from services.stack.ports import LOOPBACK, is_free

DEFAULT_PORT: Final = 8000
LEAST_MEMORY: Final = 2e9
LEAST_DISK: Final = 2e9
_SECONDS: Final = 10.0


class Verdict(StrEnum):
    """The result of a check."""

    GOOD = "good"
    WARNING = "warning"
    """Something may not work, or not well."""
    BAD = "bad"


@dataclass(frozen=True)
class Finding:
    """One result, with what to do about it where it is not good."""

    subject: str
    verdict: Verdict
    text: str


def check_machine(cache_dir: Path) -> Iterator[Finding]:
    """Check what a local stack needs."""
    missing = list(machine.lacks())
    yield from (Finding("machine", Verdict.BAD, sentence) for sentence in missing)
    if not missing:
        yield Finding("machine", Verdict.GOOD, "Linux on x86-64, with a Python and a C library that Triton runs on")
    memory = default_model.free_memory()
    enough = Verdict.GOOD if memory >= LEAST_MEMORY else Verdict.WARNING
    hint = "" if memory >= LEAST_MEMORY else f"; the stack needs {LEAST_MEMORY / 1e9:g} GB: close other programs"
    yield Finding("memory", enough, f"{memory / 1e9:.1f} GB are free{hint}")
    existing = next(path for path in (cache_dir.absolute(), *cache_dir.absolute().parents) if path.exists())
    disk = shutil.disk_usage(existing).free
    hint = "" if disk >= LEAST_DISK else f"; models need up to {LEAST_DISK / 1e9:g} GB: free some, or set --cache-dir"
    yield Finding(
        "disk", Verdict.GOOD if disk >= LEAST_DISK else Verdict.WARNING, f"{disk / 1e9:.1f} GB are free{hint}"
    )
    model, _ = default_model.choose()
    weights = local_weights.find(rendering.find(model), cache_dir)
    here = weights.status == "here"
    hint = "is here" if here else f"{weights.status}: the first start downloads it, or vilix models pull {model}"
    yield Finding("model", Verdict.GOOD, f"{model}, the default for this machine, {hint}")
    page = GatewaySettings.model_fields["site_directory"].default
    if (page / "index.html").exists():
        yield Finding("page", Verdict.GOOD, "the documentation and the playground are built")
    else:
        yield Finding("page", Verdict.WARNING, f"there is no page in {page}: make site builds it")


def check_stack(state_dir: Path) -> Iterator[Finding]:
    """Check the local stack, or whether one could start."""
    pid, state = running_pid(state_dir), read_state(state_dir)
    if pid is None:
        free = is_free(DEFAULT_PORT)
        hint = "free" if free else f"in use: make run PORT={DEFAULT_PORT + 1}, or vilix up --port {DEFAULT_PORT + 1}"
        yield Finding("port", Verdict.GOOD if free else Verdict.WARNING, f"{DEFAULT_PORT} on {LOOPBACK} is {hint}")
        yield _state_directory(state_dir)
        yield Finding("stack", Verdict.GOOD, f"none is running in {state_dir}: make run or vilix up -d starts one")
        return
    if state is None:
        yield Finding(
            "stack", Verdict.WARNING, f"process {pid} is starting or stopping: vilix logs -f shows what it does"
        )
        return
    for name, process in state["processes"].items():
        if process["state"] != "ready":
            yield Finding("process", Verdict.BAD, f"{name} is {process['state']}: vilix logs {name}")
        elif process["restarts"]:
            yield Finding(
                "process", Verdict.WARNING, f"{name} was restarted {process['restarts']} times: vilix logs {name}"
            )
    key = state_dir / "api-key"
    yield from check_api(state["url"], key.read_text().strip() if key.exists() else "", is_local=True)


def check_api(url: str, key: str, *, is_local: bool = False) -> Iterator[Finding]:
    """Check a deployment at the base URL of its API, with a key."""
    url = url.rstrip("/")
    # The local stack is never behind a proxy.
    with httpx2.Client(timeout=_SECONDS, trust_env=not is_local) as client:
        try:
            health = client.get(f"{url.removesuffix('/api').removesuffix('/v1')}/healthz")
            facts = health.json()
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            yield Finding("gateway", Verdict.BAD, f"{url} cannot be reached: {error}")
            return
        except ValueError:
            yield Finding("gateway", Verdict.BAD, f"{url} has no /healthz: check that it is the API of a gateway")
            return
        yield Finding("gateway", Verdict.GOOD, f"{url} answers")
        yield from _check_redis(facts)
        for model, available in sorted(facts.get("models", {}).items()):
            hint = "available" if available else "not available: look at its worker and its Triton"
            yield Finding("model", Verdict.GOOD if available else Verdict.BAD, f"{model} is {hint}")
        yield _check_key(client, url, key)


def _check_redis(facts: dict[str, Any]) -> Iterator[Finding]:
    redis, eviction, persistence = (facts.get(name) for name in ("redis", "redis_eviction", "redis_persistence"))
    if redis != "ok":
        yield Finding("redis", Verdict.BAD, f"{redis}: keys and limits cannot be checked or changed (docs/keys.md)")
    elif eviction not in ("noeviction", "unknown") or persistence in ("off", "failing"):
        yield Finding(
            "redis",
            Verdict.WARNING,
            f"keys can be lost: eviction is {eviction}, persistence {persistence} (docs/keys.md)",
        )
    else:
        yield Finding("redis", Verdict.GOOD, "it answers, and keeps keys and limits")


def _check_key(client: httpx2.Client, url: str, key: str) -> Finding:
    if not key:
        return Finding("key", Verdict.WARNING, "there is none to try: set the variable VILIX_API_KEY")
    try:
        status = client.get(f"{url}/models", headers={"Authorization": f"Bearer {key}"}).status_code
    except httpx2.HTTPError as error:
        return Finding("key", Verdict.BAD, f"it could not be tried: {error}")
    if status == httpx2.codes.OK:
        return Finding("key", Verdict.GOOD, "it is accepted")
    return Finding("key", Verdict.BAD, f"it is rejected with status {status}: vilix keys create makes another one")


def _state_directory(state_dir: Path) -> Finding:
    existing = next(path for path in (state_dir.absolute(), *state_dir.absolute().parents) if path.exists())
    try:
        # Permissions alone do not tell: a file system may be read-only, or have no files of its own.
        with tempfile.NamedTemporaryFile(dir=existing):
            return Finding("state", Verdict.GOOD, f"{state_dir} can be written")
    except OSError as error:
        hint = f"cannot be written ({error.strerror}): choose another one with --state-dir"
        return Finding("state", Verdict.BAD, f"{state_dir} {hint}")
