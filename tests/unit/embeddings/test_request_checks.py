"""Checks of requests that need no tokenizer."""

from __future__ import annotations

from typing import Any

import pytest
from vilix.embeddings.v1 import embeddings_service_pb2 as pb

from services.embeddings.catalog import PromptsSpec
from services.embeddings.fair_queue import FairQueue
from services.embeddings.request_checks import RequestLimits, check
from services.embeddings.served_model import ServedModel
from services.runtime.failure import Failure, Reason
from tests.unit.embeddings.models import spec


def test_token_ids_are_rejected_where_their_vocabulary_is_not_known() -> None:
    tokenization: Any = None
    model = ServedModel(spec(token_input="none"), tokenization, PromptsSpec(), None, FairQueue(capacity=1))
    request = pb.EmbedRequest(model="tiny", token_ids=[pb.TokenIds(ids=[1])])
    with pytest.raises(Failure) as caught:
        check(request, model, RequestLimits())
    assert (caught.value.reason, caught.value.message.id) == (Reason.UNSUPPORTED_PARAMETER, "token_ids_not_supported")
