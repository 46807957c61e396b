"""Errors in OpenAI's format."""

from __future__ import annotations

import json

import pytest

from services.gateway.dialects import openai_errors
from services.gateway.errors import ApiError, ErrorKind
from services.runtime.messages.message import Message


@pytest.mark.parametrize("kind", ErrorKind)
def test_every_kind_of_error_has_a_type(kind: ErrorKind) -> None:
    reply = openai_errors.render(ApiError(400, kind, Message("prompt_empty")))
    assert json.loads(reply.body)["error"]["type"]
