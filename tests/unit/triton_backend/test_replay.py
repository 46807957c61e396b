"""The engine that plays recordings."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.inference.triton_backend.engines.replay import ReplayEngine


def test_an_unknown_name_among_the_unsupported_parameters_is_reported(tmp_path: Path) -> None:
    recordings = tmp_path / "recordings.json"
    recordings.write_text("[]")
    with pytest.raises(ValueError, match="there is no parameter guide"):
        ReplayEngine(recordings=str(recordings), context_length=100, unsupported_parameters=["min_p", "guide"])
