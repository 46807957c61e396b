"""The sink between engine and Triton, with a stand-in for Triton."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest

STREAM = "services.inference.triton_backend.stream"


@pytest.fixture
def stream_module(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", ModuleType("triton_python_backend_utils"))
    sys.modules.pop(STREAM, None)
    yield importlib.import_module(STREAM)
    sys.modules.pop(STREAM, None)


def test_a_cancellation_while_triton_is_asked_is_not_lost(stream_module: Any) -> None:
    class Triton:
        def is_cancelled(self) -> bool:
            # Asking takes a while, in which another thread receives the cancellation.
            stream.cancel()
            return False

    sender = stream_module.Sender()
    try:
        stream = stream_module.Stream(Triton(), sender, window=None)
        assert stream.is_cancelled()
    finally:
        sender.close()


def test_progress_of_a_prompt_is_a_response_without_tokens(stream_module: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[Any] = []

    class Triton:
        def send(self, response: Any) -> None:
            sent.append(response)

    monkeypatch.setattr(stream_module, "_token_tensors", lambda pending: pending)
    monkeypatch.setattr(stream_module.pb_utils, "InferenceResponse", list, raising=False)
    sender = stream_module.Sender()
    stream = stream_module.Stream(Triton(), sender, window=None)
    stream.note_progress()
    monkeypatch.setattr(stream_module, "PROGRESS_SECONDS", 0)
    stream.note_progress()
    sender.close()
    assert sent == [[]], "the first one came too early"
