"""The environment of vLLM and of the processes that it starts."""

from __future__ import annotations

import locale
import multiprocessing
import os
import sys
from pathlib import Path
from typing import Final

from services.inference.triton_backend.interpreter import python

_SETTINGS: Final = {
    # No reports about its use to the authors.
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    # Triton's stub has threads, with which a fork may hang.
    "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
    "PYTHONUTF8": "1",
}
_DEFAULTS: Final = {
    # A model is a directory: nothing is to be looked up elsewhere.
    "HF_HUB_OFFLINE": "1",
}


def prepare() -> None:
    """Set up this process for vLLM. It must be called before vLLM is imported."""
    os.environ.update(_SETTINGS)
    for name, value in _DEFAULTS.items():
        os.environ.setdefault(name, value)
    # Triton's stub reads files in the encoding of its locale, and vLLM's own are in UTF-8.
    if locale.getencoding().lower() not in ("utf-8", "utf8"):
        locale.setlocale(locale.LC_CTYPE, "C.UTF-8")
    # vLLM starts programs with both, and Triton's stub is no Python interpreter.
    interpreter = python()
    multiprocessing.set_executable(interpreter)
    if not Path(sys.executable or "").name.startswith("python"):
        sys.executable = interpreter
