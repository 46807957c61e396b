from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from services.runtime.telemetry import configure_logging, log_event

FIELDS = {"status": 200, "model": "سلام", "key": "vlx_" + "a" * 43}


class Marking(logging.Filter):
    """Adds a field, as the filter of traces does."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.mark = 1
        return True


@contextmanager
def configured() -> Iterator[logging.Handler]:
    """Yield the only handler of a process whose logs go to standard error."""
    handlers, level = list(logging.root.handlers), logging.root.level
    try:
        configure_logging("gateway")
        (handler,) = logging.root.handlers
        yield handler
    finally:
        logging.root.handlers[:] = handlers
        logging.root.setLevel(level)


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    """Return the lines without their times."""
    text = capsys.readouterr().err
    assert "aaa" not in text
    found = [json.loads(line) for line in text.splitlines()]
    assert all(line.pop("time") for line in found)
    return found


def test_an_event_has_the_line_that_logging_would_write(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    logger = logging.getLogger("test")
    with configured():
        logger.info("request", extra=FIELDS)
        # It is not called again.
        monkeypatch.setattr(logging.Logger, "info", None)
        log_event(logger, "request", FIELDS)
    by_logging, event = lines(capsys)
    assert event == by_logging
    assert list(event) == ["level", "service", "message", *FIELDS]


def test_an_event_goes_through_filters(capsys: pytest.CaptureFixture[str]) -> None:
    with configured() as handler:
        handler.addFilter(Marking())
        log_event(logging.getLogger("test"), "request", FIELDS)
    (event,) = lines(capsys)
    assert event["mark"] == 1


def test_an_event_reaches_other_handlers(caplog: pytest.LogCaptureFixture) -> None:
    with configured():
        logging.root.addHandler(caplog.handler)
        log_event(logging.getLogger("test"), "request", FIELDS)
    assert [record.getMessage() for record in caplog.records] == ["request"]


def test_an_event_that_cannot_be_written_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []

    class Full:
        def write(self, text: str) -> None:
            tried.append(text)
            raise OSError("no space left")

    monkeypatch.setattr(logging, "raiseExceptions", False)
    with configured() as handler:
        monkeypatch.setattr(handler, "stream", Full())
        log_event(logging.getLogger("test"), "request", FIELDS)
    assert len(tried) == 1, "a line whose first half was written must not follow it whole"


def test_an_event_below_the_level_is_not_written(capsys: pytest.CaptureFixture[str]) -> None:
    with configured():
        logging.root.setLevel(logging.WARNING)
        log_event(logging.getLogger("test"), "request", FIELDS)
    assert lines(capsys) == []
