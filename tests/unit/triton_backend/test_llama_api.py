from __future__ import annotations

import importlib.metadata

import pytest

from services.inference.triton_backend.engines.llama_api import TESTED_TOGETHER, LlamaApi, reject_untested


def test_the_installed_library_and_declarations_match() -> None:
    assert LlamaApi().version == importlib.metadata.version("xllamacpp")


@pytest.mark.parametrize(
    ("declarations", "library"), [("b11548", "2026.11.11600"), ("b11600", "2026.10.11549"), ("", "")]
)
def test_an_untested_pair_is_rejected(declarations: str, library: str) -> None:
    assert (declarations, library) not in TESTED_TOGETHER
    with pytest.raises(RuntimeError, match=r"b11548 with xllamacpp 2026\.10\.11549 is known to go together"):
        reject_untested(declarations, library)
