"""The fields that say in which unit amounts of money are given, in receipts and usage."""

from __future__ import annotations

from typing import Annotated

from msgspec import UnsetType

from services.gateway.dialects.json_model import doc

Currency = Annotated[str | UnsetType, doc("The currency.", "واحد پول.", example="USD")]
Decimals = Annotated[
    int | UnsetType,
    doc(
        "The smallest unit of the currency is 10 to the power of minus this number.",
        "کوچک‌ترین واحد پول ۱۰ به توان منفی این عدد است.",
        example=6,
    ),
]
