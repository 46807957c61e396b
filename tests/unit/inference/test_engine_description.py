"""An engine's description of itself, as a worker reads it from Triton."""

from __future__ import annotations

import pytest

from services.inference.model.served_model import describe

DESCRIPTION = {"engine": "e", "version": "1", "supported_parameters": [], "context_length": 8, "slots": 1}


@pytest.mark.parametrize("name", ["structured_output_library", "guide_library"])
def test_the_library_is_read_by_its_name_and_by_the_name_that_earlier_releases_wrote(name: str) -> None:
    description = describe({**DESCRIPTION, name: "llguidance", f"{name}_version": "2"})
    assert description.structured_output_library == "llguidance"
    assert description.structured_output_library_version == "2"


def test_a_description_without_a_library_is_read() -> None:
    assert describe(DESCRIPTION).structured_output_library == ""
