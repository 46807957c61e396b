"""Tiny models in the real vLLM on a CPU, for the tests of `make test-vllm`."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from services.worker.triton_client import TritonClient
from tests.support import triton_servers
from tests.support.environments import INSTALL_SECONDS, python_of
from tests.support.triton_servers import Server

ENVIRONMENT = "vllm"
LOAD_SECONDS = 600
"""The most seconds in which vLLM loads tiny models, on a busy machine."""
MARKS = [pytest.mark.vllm, pytest.mark.timeout(INSTALL_SECONDS + 2 * LOAD_SECONDS)]
ARGUMENTS: dict[str, Any] = {
    "dtype": "float32",
    "enforce_eager": True,
    "kv_cache_memory_bytes": 2**28,
    # The least; it is the unit of the prefix cache.
    "block_size": 32,
}
"""Arguments of a tiny model on a CPU."""


@contextlib.asynccontextmanager
async def serving(
    directory: Path, models: Mapping[str, Mapping[str, Any]]
) -> AsyncIterator[tuple[Server, TritonClient]]:
    """Start a Triton in vLLM's environment, and yield it with a client once its models are ready.

    Args:
        directory: The directory of the server.
        models: The arguments of each model beside ARGUMENTS, by id.
    """
    engines = {model: ("vllm", {**ARGUMENTS, **arguments}) for model, arguments in models.items()}
    with pytest.MonkeyPatch.context() as patch:
        # Compiling a few lines of the sampler takes longer than the tests.
        patch.setenv("TORCHDYNAMO_DISABLE", "1")
        async with triton_servers.serving(
            directory, engines, python=python_of(ENVIRONMENT), seconds=LOAD_SECONDS
        ) as running:
            yield running
