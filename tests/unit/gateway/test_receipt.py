"""Receipts: their size, and that nothing of a request's text is in them."""

from __future__ import annotations

from typing import Any

import msgspec
import orjson
from vilix.inference.v1 import inference_service_pb2 as pb

from services.gateway.endpoints.receipt_model import Receipt
from services.gateway.endpoints.receipts import document
from services.gateway.operations.parameters_digest import parameters_digest
from services.gateway.record import Outcome, RequestRecord
from services.gateway.tenancy.limits_script import Produced
from services.gateway.tenancy.prices import ModelPrice
from services.gateway.tenancy.receipt import MOST_BYTES, receipt_of

SECRET = "the text of a person"


def full_record() -> RequestRecord:
    """Return a record whose texts are as long as clients and workers can make them."""
    record = RequestRecord("r" * 128, "POST", status=200, stream=True)
    record.note_model("\U0001f98a" * 1000, is_known=True)
    notes = record.receipt
    notes.alias, notes.endpoint = "a" * 128, "/api/v1/" + "e" * 50
    notes.authenticated_at = notes.queued_at = notes.admitted_at = notes.last_token_at = notes.arrived_at + 86_400
    for number in range(100):
        notes.note_call(f"{number}" * 100, notes.arrived_at)
        notes.note_finish(f"reason {number % 4}")
    notes.worker, notes.engine, notes.engine_version = "w" * 1000, "e" * 1000, "v" * 1000
    notes.worker_ms = dict.fromkeys(("queued", "prefill", "decode", "first_token", "render"), 86_400_000.1)
    notes.parameters = "0" * 16
    notes.note_error("m" * 64, 503)
    return record


def test_a_receipt_has_few_bytes() -> None:
    price = ModelPrice(currency="USD", decimals=6, prompt=10**9, cached=10**9, completion=10**9)
    produced = Produced(2**32, 2**32, 2**32, 2**32)
    receipt = receipt_of(full_record(), outcome=Outcome.BROKEN_OFF, produced=produced, price=price)
    assert len(receipt) < 2500
    assert orjson.loads(receipt)["retries"] == 99


def test_a_receipt_that_would_be_too_long_has_no_addresses() -> None:
    record = full_record()
    record.receipt.finish_reasons = ["\U0001f98a" * 300] * 9
    receipt = receipt_of(record, outcome=Outcome.COMPLETE)
    assert len(receipt) <= MOST_BYTES
    assert orjson.loads(receipt)["id"] == record.request_id


def test_a_text_is_cut_by_its_bytes_as_json() -> None:
    for model in ("\x00", "\U0001f98a", "a"):
        record = RequestRecord("r", "POST")
        record.note_model(model * 128, is_known=True)
        kept = orjson.loads(receipt_of(record, outcome=Outcome.COMPLETE))["model"]
        assert 120 < len(orjson.dumps(kept)) <= 130


def test_the_public_receipt_is_as_documented_and_has_no_addresses() -> None:
    for record in (full_record(), RequestRecord("r", "POST")):
        shown = document(orjson.loads(receipt_of(record, outcome=Outcome.REJECTED)))
        msgspec.convert(shown, Receipt)
        assert "addresses" not in shown


def test_the_digest_of_parameters_has_no_text_of_the_request() -> None:
    def digest(**fields: Any) -> str:
        return parameters_digest(pb.GenerateRequest(model="m", **fields))

    bare = digest(sampling=pb.SamplingParams(temperature=0.5))
    assert bare != digest(sampling=pb.SamplingParams(temperature=0.6))
    texts = pb.SamplingParams(temperature=0.5, stop=[SECRET], stop_token_ids=[5], logit_bias={5: 1.0})
    message = pb.Message(content=[pb.ContentPart(text=SECRET)], name=SECRET)
    assert bare == digest(
        sampling=texts, messages=[message], prompt=SECRET, suffix=SECRET, tenant=SECRET, affinity_key=SECRET
    )
