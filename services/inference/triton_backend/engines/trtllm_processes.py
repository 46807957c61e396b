"""The processes in which TensorRT-LLM runs a model: one for each GPU, which MPI starts."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Final

_OF_AN_MPI_JOB: Final = ("OMPI_COMM_WORLD_SIZE", "PMIX_RANK", "PMI_RANK")
_BY_LAUNCHER: Final = "TLLM_SPAWN_PROXY_PROCESS"
"""Set by `trtllm-llmapi-launch`, whose job has as many ranks as the job around it: without one, a single rank."""
_NO_REPORTS: Final = ("TRTLLM_NO_USAGE_STATS", "DO_NOT_TRACK")


def forbid_reports() -> None:
    """Keep TensorRT-LLM from reporting its use to NVIDIA, as 1.3 and later do. It must be called before the import."""
    for name in _NO_REPORTS:
        os.environ[name] = "1"


def ranks(arguments: Mapping[str, Any]) -> int:
    """Return the number of GPUs, and so of processes, of a model that is loaded with `arguments`."""
    kinds = ("tensor_parallel_size", "pipeline_parallel_size", "context_parallel_size")
    count = 1
    for kind in kinds:
        count *= arguments.get(kind) or 1
    return count


def independent_ranks(arguments: Mapping[str, Any]) -> int:
    """Return the number of ranks that have requests and a KV cache of their own: several with attention DP."""
    return int(arguments.get("tensor_parallel_size") or 1) if arguments.get("enable_attention_dp") else 1


def reject_missing_job(arguments: Mapping[str, Any]) -> None:
    """Raise RuntimeError if the processes of several GPUs could not be started, or would be waited for forever."""
    count = ranks(arguments)
    if count == 1 or arguments.get("orchestrator_type") not in (None, "mpi"):
        return
    has_job = any(name in os.environ for name in _OF_AN_MPI_JOB)
    if not has_job or os.environ.get(_BY_LAUNCHER) == "1":
        raise RuntimeError(
            f"the model needs {count} processes, which only an MPI job can start: start tritonserver with "
            "`mpirun -n 1`, as the image of docker/triton.Dockerfile does, and without trtllm-llmapi-launch"
        )
