"""The reports about its use that TensorRT-LLM sends to NVIDIA since 1.3."""

from __future__ import annotations

import os

from tensorrt_llm.version import since

SENT: list[str] = []
"""For tests. Nothing is really sent."""


def report() -> None:
    off = ("TRTLLM_NO_USAGE_STATS", "TELEMETRY_DISABLED", "DO_NOT_TRACK")
    if since("1.3.0rc0") and not any(os.environ.get(name) == "1" for name in off):
        SENT.append("a model was loaded")
