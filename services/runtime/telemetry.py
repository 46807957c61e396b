"""Logs of a service, which never contain content or secrets: readable lines on a terminal, and JSON elsewhere."""

from __future__ import annotations

import json
import logging
import re
import sys
import time
from collections.abc import Mapping
from functools import lru_cache
from typing import Final, TextIO

_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "color_message"}
_ENCODER: Final = json.JSONEncoder(ensure_ascii=False, default=str)
_CONTROL: Final = {code: f"\\x{code:02x}" for code in (*range(32), 127)}
_KEY: Final = re.compile(r"vlx_[0-9A-Za-z]{6,}")


def without_keys(text: str) -> str:
    """Return `text` with every API key, and everything that could be part of one, redacted."""
    return _KEY.sub("vlx_…", text) if "vlx_" in text else text


class _Format(logging.Formatter):
    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service

    def fields(self, record: logging.LogRecord) -> dict[str, object]:
        """Return the fields that were passed as `extra`."""
        return {name: value for name, value in vars(record).items() if name not in _STANDARD}

    def line(self, record: logging.LogRecord) -> str:
        """Return the line of a record. It may still contain keys."""
        raise NotImplementedError

    def format(self, record: logging.LogRecord) -> str:
        # A caller's key must not be in the log, whatever it is part of, a traceback included.
        return without_keys(self.line(record))


@lru_cache(maxsize=2)
def _second(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))


class _JsonLines(_Format):
    def line(self, record: logging.LogRecord) -> str:
        fields = self.fields(record)
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return self.line_of(record.created, record.levelname.lower(), record.getMessage(), fields)

    def line_of(self, created: float, level: str, message: str, fields: Mapping[str, object]) -> str:
        """Return the line of what was logged at the time `created`. It may still contain keys."""
        second = int(created)
        line = {
            "time": f"{_second(second)}.{int((created - second) * 1000):03d}Z",
            "level": level,
            "service": self._service,
            "message": message,
            **fields,
        }
        return _ENCODER.encode(line)


class _Terminal(_Format):
    def line(self, record: logging.LogRecord) -> str:
        clock = time.strftime("%H:%M:%S", time.localtime(record.created))
        fields = "".join(f" {name}={value}" for name, value in self.fields(record).items())
        # Text of a caller must not move the cursor of the terminal.
        text = f"{clock} {record.levelname.lower():7} {record.getMessage()}{fields}".translate(_CONTROL)
        return text if not record.exc_info else f"{text}\n{self.formatException(record.exc_info)}"


class _Lines(logging.StreamHandler[TextIO]):
    """Writes lines to standard error, which flushes each by itself."""

    def flush(self) -> None:
        """Do nothing."""

    def write_event(self, message: str, fields: Mapping[str, object]) -> bool:
        """Write what was logged now at the level INFO. Return False if it must take the way through `logging`."""
        if self.filters or not isinstance(self.formatter, _JsonLines):
            return False
        line = without_keys(self.formatter.line_of(time.time(), "info", message, fields))
        self.acquire()
        try:
            self.stream.write(f"{line}\n")
        except (OSError, ValueError):
            # Not written again: a part of the line may already be in the stream's buffer.
            self.handleError(logging.makeLogRecord({"msg": message}))
        finally:
            self.release()
        return True


class _CallersBytes(logging.Filter):
    """Shortens to one line what gRPC logs, with tracebacks, about paths and headers that are not valid UTF-8."""

    def filter(self, record: logging.LogRecord) -> bool:
        if record.exc_info and isinstance(record.exc_info[1], UnicodeDecodeError):
            record.exc_info, record.levelno, record.levelname = None, logging.WARNING, "WARNING"
        return True


def log_event(logger: logging.Logger, message: str, fields: Mapping[str, object]) -> None:
    """Log at the level INFO like `logger.info(message, extra=fields)`, in a third of the steps if only we look at it.

    For the one line that every request writes.
    """
    if not logger.isEnabledFor(logging.INFO):
        return
    handlers = logging.root.handlers
    if len(handlers) == 1 and isinstance(handlers[0], _Lines) and handlers[0].write_event(message, fields):
        return
    logger.info(message, extra=fields)


def configure_logging(service: str) -> None:
    """Send all logs of this process to standard error. `extra={…}` of a call becomes fields of its line."""
    handler = _Lines(sys.stderr)
    handler.setFormatter(_Terminal(service) if sys.stderr.isatty() else _JsonLines(service))
    # No line has them, and finding them takes longer than writing a line. The last one is the place of the call.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logging._srcfile = None  # logging's documentation names this way
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    # One line per request is enough, and ours says more.
    for name in ("uvicorn.access", "httpx", "asyncio"):
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("grpc._cython.cygrpc").addFilter(_CallersBytes())
