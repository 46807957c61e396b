"""The addresses of a stack's processes, and the credentials that protect them."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass

from services.stack.ports import LOOPBACK


@dataclass(frozen=True)
class Ports:
    """The ports of the processes on 127.0.0.1."""

    gateway: int
    admin: int
    redis: int
    inference: int
    embeddings: int
    gateway_metrics: int
    inference_metrics: int
    embeddings_metrics: int


@dataclass(frozen=True)
class Credentials:
    """Secrets that protect the parts of a stack from other users of the machine; new at every start."""

    redis_password: str
    admin_token: str


def facts(ports: Ports, credentials: Credentials) -> dict[str, object]:
    """Return what `state.json` says about a stack from its beginning."""
    return {
        "pid": os.getpid(),
        "url": api_url(ports),
        "redis_url": redis_url(ports, credentials),
        "admin_url": f"http://{LOOPBACK}:{ports.admin}",
        "admin_token": credentials.admin_token,
        "inference_target": target(ports.inference),
        "embeddings_target": target(ports.embeddings),
        "ports": asdict(ports),
    }


def redis_url(ports: Ports, credentials: Credentials) -> str:
    """Return the URL of the database."""
    return f"redis://:{credentials.redis_password}@{LOOPBACK}:{ports.redis}/0"


def api_url(ports: Ports) -> str:
    """Return the base URL of the HTTP API."""
    return f"http://{LOOPBACK}:{ports.gateway}/api"


def target(port: int) -> str:
    """Return the address of a port."""
    return f"{LOOPBACK}:{port}"
