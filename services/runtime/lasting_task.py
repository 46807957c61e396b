"""Tasks that outlive the request that happens to start them."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextvars import Context
from typing import Any, TypeVar

T = TypeVar("T")


def lasting_task(work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """Start a task without the context of the present request, whose trace would else be that of its log lines."""
    return asyncio.create_task(work, context=Context())
