"""The fingerprint of what answers a request, by which callers notice that answers may differ from earlier ones."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from importlib import metadata
from typing import Final

from vilix.inference.v1 import inference_service_pb2 as pb

_VERSION: Final = metadata.version("vilix")


def fingerprint_of(model: pb.Model | None) -> str:
    """Return the fingerprint of a model's weights, its engine and this version; None is an unavailable model."""
    if model is None:
        return _fingerprint("", "", "")
    return _fingerprint(model.checkpoint, model.engine.name, model.engine.version)


@lru_cache(maxsize=256)
def _fingerprint(*parts: str) -> str:
    return f"fp_{hashlib.sha256(repr((_VERSION, *parts)).encode()).hexdigest()[:10]}"
