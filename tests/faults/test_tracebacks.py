"""The detection of faults in logs."""

from __future__ import annotations

import json

import pytest

from tests.faults.everything import tracebacks_in

OURS = 'Traceback (most recent call last):\n  File "a.py", line 1, in f\n    g()\nKeyError: 1'
GONE = 'Traceback (most recent call last):\n  File "grpc", line 1, in f\ngrpc._cython.cygrpc.ExecuteBatchError: Failed'


def folded(text: str) -> str:
    return json.dumps({"level": "error", "message": "call failed", "exception": text})


@pytest.mark.parametrize("between", ["\n", "\n\n"])
@pytest.mark.parametrize("form", [str, folded])
def test_the_error_of_a_disconnected_caller_hides_no_fault(form: type[str], between: str) -> None:
    request = json.dumps({"message": "request"})
    for log in ([form(OURS), form(GONE)], [form(GONE), request, form(OURS)], [f"{form(OURS)}{between}{form(GONE)}"]):
        (traceback,) = tracebacks_in(between.join(log))
        assert "KeyError: 1" in traceback
    assert list(tracebacks_in(between.join([request, form(GONE), request]))) == []


def test_a_fault_while_a_disconnect_is_handled_is_a_fault() -> None:
    assert len(list(tracebacks_in(folded(f"{OURS}\n\nDuring handling of the above:\n\n{GONE}")))) == 1
