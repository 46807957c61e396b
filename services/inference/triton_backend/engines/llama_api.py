"""llama.cpp's C API: the library in the xllamacpp wheel, with the declarations of llama-cpp-py-sync.

A declaration that differs from the library silently corrupts memory, so that both must be of the same state of
llama.cpp. Only the versions of the packages tell it, because xllamacpp's library is built without build information (it
reports build 0, commit "unknown" and version "0.6.0-dev"). The last part of xllamacpp's version is llama.cpp's build
number, and llama-cpp-py-sync states the tag from which it was generated. These two are compared with the pairs that
were tested. As a last check, defaults that the library writes into declared structures must have the values that
llama.cpp documents.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
from collections import deque
from pathlib import Path
from typing import Any, Final

TESTED_TOGETHER: Final = frozenset({("b11548", "2026.10.11549")})
"""Pairs of llama-cpp-py-sync's tag and xllamacpp's version."""

# llguidance's sampler belongs to llama.cpp's C++ helpers, so that its symbol is a mangled C++ name.
INIT_LLGUIDANCE: Final = "_Z22llama_sampler_init_llgPK11llama_vocabPKcS3_"
_LLGUIDANCE_DECLARATION: Final = (
    f"struct llama_sampler * {INIT_LLGUIDANCE}"
    "(const struct llama_vocab * vocab, const char * kind, const char * grammar);"
)
_DEFAULTS: Final = {
    "n_ctx": 512,
    "n_batch": 2048,
    "n_ubatch": 512,
    "n_seq_max": 1,
    "yarn_beta_fast": -1.0,
    "embeddings": False,
    "offload_kqv": True,
    "no_perf": True,
    "kv_unified": False,
}
_LOG_ERROR: Final = 4


class LlamaApi:
    """The loaded library. `lib` has llama.cpp's functions, and `ffi` creates their arguments."""

    def __init__(self) -> None:
        """Load the library. Raises RuntimeError if library and declarations do not match."""
        # Only an environment of the CPU engine has these packages.
        from llama_cpp_py_sync import _version  # noqa: PLC0415
        from llama_cpp_py_sync._cffi_bindings import get_ffi  # noqa: PLC0415

        self.version: str = importlib.metadata.version("xllamacpp")
        reject_untested(_version.__llama_cpp_tag__, self.version)
        self.ffi: Any = get_ffi()  # type: ignore[no-untyped-call]  # it is generated, without types
        self.ffi.cdef(_LLGUIDANCE_DECLARATION, override=True)
        self.lib: Any = self.ffi.dlopen(str(_library()))
        self._check_layout()
        self._errors: deque[str] = deque(maxlen=4)
        # Kept, because the library calls it until the process ends.
        self._log = self.ffi.callback("void(enum ggml_log_level, const char *, void *)", self._on_log)
        self.lib.llama_log_set(self._log, self.ffi.NULL)
        self.lib.mtmd_log_set(self._log, self.ffi.NULL)
        self.lib.llama_backend_init()

    def last_error(self) -> str:
        """Return the last error that the library has logged, or an empty text."""
        return self._errors[-1] if self._errors else ""

    def _on_log(self, level: int, text: Any, _: Any) -> None:
        if level == _LOG_ERROR:
            self._errors.append(self.ffi.string(text).decode(errors="replace").strip())

    def _check_layout(self) -> None:
        defaults = self.lib.llama_context_default_params()
        for name, expected in _DEFAULTS.items():
            value = getattr(defaults, name)
            if value != expected:
                raise RuntimeError(
                    f"llama.cpp's declarations do not fit its library: default {name} reads {value}, not {expected}"
                )


def reject_untested(declarations: str, library: str) -> None:
    """Raise RuntimeError unless the tag of the declarations and the version of the library are known to match."""
    if (declarations, library) not in TESTED_TOGETHER:
        pairs = ", ".join(f"{tag} with xllamacpp {version}" for tag, version in sorted(TESTED_TOGETHER))
        raise RuntimeError(
            f"llama.cpp's declarations are of build {declarations} (llama-cpp-py-sync), its library is of xllamacpp "
            f"{library}; only {pairs} is known to go together"
        )


def _library() -> Path:
    spec = importlib.util.find_spec("xllamacpp")
    if spec is None or not spec.submodule_search_locations:
        raise RuntimeError("xllamacpp is not installed; it carries llama.cpp's library")
    return Path(spec.submodule_search_locations[0]) / "xllamacpp.abi3.so"
