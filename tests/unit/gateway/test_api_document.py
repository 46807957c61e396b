"""The API's document has the fields that requests are read for, and no others."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import yaml

from tests.unit.gateway.written_messages import SERVICES

DOCUMENT: Final[dict[str, Any]] = yaml.safe_load((SERVICES / "gateway/site/openapi.yaml").read_text())
SCHEMAS: Final[dict[str, Any]] = DOCUMENT["components"]["schemas"]


def test_every_text_of_the_document_is_there_in_both_languages() -> None:
    def texts(node: Any) -> Iterator[dict[str, str]]:
        for key, value in node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ():
            if key in ("description", "summary") and "type" not in value:
                yield value
            else:
                yield from texts(value)

    found = list(texts({**DOCUMENT, "info": {}}))
    assert len(found) > 100
    assert [text for text in found if text.keys() != {"en", "fa"}] == []
