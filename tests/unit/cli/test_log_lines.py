"""Lines of logs, as they are read and shown."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

from services.cli.log_lines import LogReader, parse

TIME = "2026-11-29T08:31:14.825Z"
SECONDS = datetime.fromisoformat(TIME).timestamp()


def line(message: str, **fields: object) -> str:
    return json.dumps({"time": TIME, "level": "info", "service": "gateway", "message": message, **fields})


def shown(raw: str) -> str:
    return parse("gateway", raw, before=0).render(width=10).plain


def test_a_request_is_one_readable_line() -> None:
    raw = line(
        "request", request_id="req-1", method="POST", route="/api/chat", status=200, duration_ms=1234.5, model="m"
    )
    text = shown(raw)
    assert "POST /api/chat 200 in 1.23 s  model=m  request_id=req-1" in text
    assert parse("gateway", raw, before=0).request_id == "req-1"


def test_text_of_callers_cannot_move_the_cursor() -> None:
    assert "\x1b" not in shown(line("a\x1b[2Jb", model="\x1b]0;x\x07", exception="Trace\n  at\x1b[1A"))
    assert "\x9b" not in shown("plain \x9b2J")


def test_the_times_of_valkey_and_triton_are_understood() -> None:
    valkey = parse("valkey", "22158:M 29 Nov 2026 08:30:26.405 * Server initialized", before=0)
    assert valkey.text == "Server initialized"
    assert datetime.fromtimestamp(valkey.time).astimezone().strftime("%H:%M:%S") == "08:30:26"
    now = datetime.now(UTC)
    triton = parse("triton", f'E{now:%m%d %H:%M:%S.%f} 13553 server.cc:241] "has failed"', before=0)
    assert (triton.level, triton.text) == ("error", '"has failed"')
    assert abs(triton.time - now.timestamp()) < 1
    # Other lines belong to the one before.
    assert parse("triton", "Signal (15) received.", before=5.0).time == 5.0
    assert parse("gateway", "{broken", before=5.0).text == "{broken"


def test_a_log_is_followed_through_its_replacement_and_half_written_lines(tmp_path: Path) -> None:
    path = tmp_path / "gateway.log"
    reader = LogReader(lambda: sorted(tmp_path.glob("*.log")))
    assert reader.read() == []
    path.write_text(line("one") + "\n" + line("two")[:10])
    assert [each.text for each in reader.read()] == ["one"]
    with path.open("a") as log:
        log.write(line("two")[10:] + "\n")
    assert [each.text for each in reader.read()] == ["two"]
    with path.open("a") as log:
        log.write(line("last words") + "\n")
    path.unlink()
    path.write_text(line("after the restart") + "\n")
    assert [each.text for each in reader.read()] == ["last words", "after the restart"]
    reader.close()


def test_lines_of_several_processes_are_in_the_order_of_their_times(tmp_path: Path) -> None:
    for name, seconds in (("a", 10), ("b", 5), ("c", 7)):
        moment = datetime.fromtimestamp(SECONDS + seconds, UTC).isoformat()
        fields = {"time": moment, "level": "info", "service": name, "message": name}
        (tmp_path / f"{name}.log").write_text(json.dumps(fields) + "\n")
    reader = LogReader(lambda: sorted(tmp_path.glob("*.log")))
    assert [each.name for each in reader.read()] == ["b", "c", "a"]
    reader.close()
