"""Lines of the stack's logs: read from their files as they grow, and rendered for people."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, TextIO

from rich.text import Text

_VALKEY: Final = re.compile(r"\d+:\w+ (?P<time>\d{2} \w{3} \d{4} \d{2}:\d{2}:\d{2}\.\d{3}) . (?P<text>.*)")
_TRITON: Final = re.compile(r"(?P<level>[IWE])(?P<time>\d{4} \d{2}:\d{2}:\d{2}\.\d{6}) +\d+ [^\]]*\] (?P<text>.*)")
_LEVELS: Final = {"I": "info", "W": "warning", "E": "error"}
_STYLES: Final = {"warning": "yellow", "error": "red", "critical": "bold red"}
_SHOWN_ELSEWHERE: Final = ("time", "level", "service", "message", "exception")
_PROBES: Final = ("/healthz", "/readyz", "/activity", "/admin/v1/activity")
_REQUEST_LINE: Final = {"method", "route", "status", "duration_ms"}
_CONTROL: Final = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160))}


@dataclass(frozen=True)
class LogLine:
    """One line of a log."""

    name: str
    """The process that wrote it."""
    raw: str
    time: float
    """Seconds since 1970. A line without a time has the one of the line before it."""
    level: str
    text: str
    fields: dict[str, Any]

    @property
    def request_id(self) -> str | None:
        """The id of the request that it is about."""
        request_id = self.fields.get("request_id")
        return None if request_id is None else str(request_id)

    @property
    def is_probe(self) -> bool:
        """Whether it is about a successful request for the health or the activity of the gateway."""
        return str(self.fields.get("route")) in _PROBES and self.fields.get("status") == 200

    def render(self, *, width: int) -> Text:
        """Return the line for a terminal; `width` is the one of the longest name."""
        clock = datetime.fromtimestamp(self.time).astimezone().strftime("%H:%M:%S") if self.time else " " * 8
        text = Text.assemble((clock, "dim"), " ", (f"{self.name:{width}}", "cyan"), " ")
        # Text of a caller must not move the cursor of the terminal.
        fields = {name: value for name, value in self.fields.items() if name not in _SHOWN_ELSEWHERE}
        message = self.text
        if message == "request" and fields.keys() >= _REQUEST_LINE:
            method, route, status, milliseconds = (
                fields.pop(name) for name in ("method", "route", "status", "duration_ms")
            )
            message = f"{method} {route} {status} in {milliseconds / 1000:.2f} s"
        text.append(message.translate(_CONTROL), style=_STYLES.get(self.level, ""))
        for name, value in sorted(fields.items(), key=lambda field: field[0] == "request_id"):
            if value is not None:
                text.append(f"  {name}=", style="dim")
                text.append(str(value).translate(_CONTROL))
        if exception := self.fields.get("exception"):
            text.append("\n" + "\n".join(line.translate(_CONTROL) for line in str(exception).splitlines()), style="dim")
        return text


def parse(name: str, raw: str, *, before: float) -> LogLine:
    """Return a line of the process `name`. `before` is the time of the line before it."""
    if raw.startswith("{"):
        try:
            fields = json.loads(raw)
            moment = datetime.fromisoformat(fields["time"]).timestamp()
            return LogLine(name, raw, moment, str(fields["level"]), str(fields["message"]), fields)
        except (ValueError, KeyError, TypeError):
            pass
    if found := _VALKEY.fullmatch(raw):
        local = datetime.strptime(found["time"], "%d %b %Y %H:%M:%S.%f").astimezone()
        return LogLine(name, raw, local.timestamp(), "info", found["text"], {})
    if found := _TRITON.fullmatch(raw):
        year = datetime.now(UTC).year
        local = datetime.strptime(f"{year}{found['time']}", "%Y%m%d %H:%M:%S.%f").replace(tzinfo=UTC)
        return LogLine(name, raw, local.timestamp(), _LEVELS[found["level"]], found["text"], {})
    return LogLine(name, raw, before, "info", raw, {})


class LogReader:
    """Reads the logs of several processes, each from its beginning. A log that was replaced is read anew."""

    def __init__(self, paths: Callable[[], Sequence[Path]]) -> None:
        """Read the files that `paths` returns, which may become more."""
        self._paths: Final = paths
        self._files: Final[dict[Path, _OpenLog]] = {}

    def read(self) -> list[LogLine]:
        """Return the lines that were added since the last call, in the order of their times."""
        lines: list[LogLine] = []
        for path in self._paths():
            lines.extend(self._files.setdefault(path, _OpenLog(path)).read())
        return sorted(lines, key=lambda line: line.time)

    def close(self) -> None:
        """Close the files."""
        for log in self._files.values():
            log.close()


class _OpenLog:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: TextIO | None = None
        self._inode = 0
        self._beginning = ""
        self._time = 0.0

    def read(self) -> Iterator[LogLine]:
        yield from self._rest()
        try:
            inode = self._path.stat().st_ino
        except OSError:
            return
        if inode != self._inode:
            self.close()
            self._file, self._inode, self._beginning = self._path.open(encoding="utf-8", errors="replace"), inode, ""
            yield from self._rest()

    def close(self) -> None:
        if self._file is not None:
            self._file.close()

    def _rest(self) -> Iterator[LogLine]:
        while self._file is not None and (text := self._file.readline()):
            if not text.endswith("\n"):
                # The rest of the line is not written yet.
                self._beginning += text
                continue
            line = parse(self._path.stem, self._beginning + text.rstrip("\n"), before=self._time)
            self._beginning, self._time = "", line.time
            if line.raw.strip():
                yield line
