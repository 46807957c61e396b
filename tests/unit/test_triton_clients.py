from __future__ import annotations

import pytest

from services.worker.triton_clients import TritonClients, check_targets, targets


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("127.0.0.1:8001", {"a": "127.0.0.1:8001", "b": "127.0.0.1:8001"}),
        ("unix:/run/it=s:1", {"a": "unix:/run/it=s:1", "b": "unix:/run/it=s:1"}),
        ("a=host:1, b=unix:/run/b:1", {"a": "host:1", "b": "unix:/run/b:1"}),
    ],
)
def test_models_may_share_one_triton_or_have_one_each(value: str, expected: dict[str, str]) -> None:
    assert check_targets(value) == value
    assert targets(value, ["a", "b"]) == expected


@pytest.mark.parametrize("value", ["", "host", "a=", "a=host", "host:1,other:2", "a=host:1,"])
def test_an_invalid_entry_is_rejected(value: str) -> None:
    with pytest.raises(ValueError, match="neither"):
        check_targets(value)


def test_a_model_without_a_triton_is_named() -> None:
    with pytest.raises(ValueError, match="names no endpoint for the model b"):
        targets("a=host:1", ["a", "b"])


async def test_models_of_one_triton_share_its_client() -> None:
    clients = TritonClients({"a": "host:1", "b": "host:1", "c": "host:2"})
    assert clients["a"] is clients["b"]
    assert clients["a"] is not clients["c"]
    assert list(clients) == ["a", "b", "c"]
    await clients.close()
