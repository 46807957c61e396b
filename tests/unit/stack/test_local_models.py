"""The longest context of local models: `vilix up --context-length`."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.inference.weights.gguf_download import Watcher
from services.stack.local_models import SMALL_MODEL, catalog_model, own_model
from services.stack.supervisor import StackError
from tests.support import models, qwen3_gguf


class _NoDownload(Watcher):
    """Fails the test if a download begins."""

    def progress(self, done: int, total: int) -> None:
        raise AssertionError(f"a download has {done} of {total} bytes")

    def note(self, text: str) -> None:
        raise AssertionError(f"a download says: {text}")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a GGUF file that says it was trained for 4,096 tokens."""
    path = tmp_path_factory.mktemp("tiny") / "tiny.gguf"
    qwen3_gguf.write(path, models.qwen3())
    return path


def test_a_model_of_the_catalog_gets_the_context_that_is_asked_for() -> None:
    directory = models.smollm2()
    model = catalog_model(SMALL_MODEL, directory.parent.parent, _NoDownload(), context_length=1024)
    assert model.changes == {"context_length": 1024}


def test_without_the_option_the_entry_decides() -> None:
    directory = models.smollm2()
    assert catalog_model(SMALL_MODEL, directory.parent.parent, _NoDownload()).changes == {}


def test_a_context_that_the_model_was_not_trained_for_is_rejected_before_the_download(tmp_path: Path) -> None:
    message = "--context-length 32769 is longer than qwen2.5-coder-0.5b allows: 32768 tokens"
    with pytest.raises(StackError, match=message):
        catalog_model("qwen2.5-coder-0.5b", tmp_path, _NoDownload(), context_length=32_769)


def test_own_weights_get_the_context_that_is_asked_for_up_to_what_they_were_trained_for(
    tiny: Path, tmp_path: Path
) -> None:
    assert own_model("qwen3-8b", tiny, tmp_path, context_length=2048).changes == {"context_length": 2048}
    assert own_model("qwen3-8b", tiny, tmp_path).changes == {"context_length": 4096}
    with pytest.raises(StackError, match="--context-length 4097 is longer than qwen3-8b allows: 4096 tokens"):
        own_model("qwen3-8b", tiny, tmp_path, context_length=4097)
