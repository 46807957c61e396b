"""Checks of structured output."""

from __future__ import annotations

import json
import re

from bench.trtllm.subject import Subject
from services.worker.triton_kit.request_error import RequestError

SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}


def structured_outputs(subject: Subject) -> str:
    """Check that structured output matches its schema or regular expression."""
    subject.needs("structured_output")
    prompt = subject.chat("Name a city, as JSON with the key city.")
    value = json.loads(
        subject.text(subject.ask(prompt, temperature=0, max_tokens=64, structured_output={"json": SCHEMA}))
    )
    assert value.keys() == {"city"}, value
    json.loads(
        subject.text(subject.ask(prompt, temperature=0, max_tokens=128, structured_output={"json_object": True}))
    )
    number = subject.text(subject.ask(prompt, temperature=0, max_tokens=16, structured_output={"regex": "[0-9]{2}"}))
    assert re.fullmatch("[0-9]{2}", number), number
    return f"{value}, {number}"


def bad_structured_output(subject: Subject) -> str:
    """Check that structured output that cannot be compiled fails only its own request."""
    subject.needs("structured_output")
    try:
        subject.ask(subject.question, max_tokens=8, structured_output={"regex": "(unclosed"})
        message = "it was not rejected"
    except RequestError as error:
        message = str(error)
    assert len(subject.greedy(subject.question, 4)) == 4
    return message
