"""The activity of several gateways as one."""

from __future__ import annotations

from typing import Any

from services.cli.admin_access import merge


def activity(*requests: tuple[str, float], workers: tuple[str, ...], available: bool = True) -> dict[str, Any]:
    engines = [{"worker": worker, "running": 1} for worker in workers]
    return {
        "requests_total": len(requests),
        "requests": [{"request_id": name, "seconds": seconds} for name, seconds in requests],
        "models": [{"id": "m", "available": available, "engines": engines}],
    }


def test_requests_are_added_and_workers_are_counted_once() -> None:
    merged = merge(
        [
            activity(("new", 1.0), ("old", 9.0), workers=("a", "b")),
            activity(("middle", 5.0), workers=("b", "c"), available=False),
        ]
    )
    assert merged["requests_total"] == 3
    assert [request["request_id"] for request in merged["requests"]] == ["old", "middle", "new"]
    (model,) = merged["models"]
    assert model["available"]
    assert [engine["worker"] for engine in model["engines"]] == ["a", "b", "c"]
