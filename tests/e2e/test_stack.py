"""`vilix up` itself: starting, staying up, stopping, and saying what is wrong."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import stat
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from services.stack.ports import LOOPBACK, free_ports
from tests.e2e.conftest import ROOT, RunningStack, is_alive, up, vilix
from tests.faults.conftest import record

END_SECONDS = 2.0
BODY = {"model": "smollm2-135m", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2}


def until(condition: Callable[[], bool], seconds: float = 30) -> None:
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit, "the condition did not come true in time"
        time.sleep(0.05)


def chat_status(stack: RunningStack) -> int:
    """The status of a short chat; 0 where nothing answers."""
    headers = {"Authorization": f"Bearer {stack.api_key}"}
    try:
        return httpx.post(f"{stack.url}/chat/completions", headers=headers, json=BODY, timeout=30).status_code
    except httpx.TransportError:
        return 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_everything_and_a_second_start_has_the_same_key(tmp_path: Path, number: signal.Signals) -> None:
    with up(tmp_path) as first:
        key, pids = first.api_key, first.state["pids"].values()
        assert set(first.state["pids"]) == {"valkey", "triton", "inference", "embeddings", "gateway"}
        assert chat_status(first) == 200
        assert first.stop(number) == 0
    assert not any(is_alive(pid) for pid in pids)
    assert not (tmp_path / "state.json").exists()
    with up(tmp_path) as second:
        assert second.api_key == key
        assert chat_status(second) == 200


def test_a_second_signal_ends_everything_at_once(tmp_path: Path) -> None:
    """Also Triton, which takes no notice of a second one itself, and waits for its streams for half a minute."""
    with up(tmp_path) as stack:
        pids, headers = stack.state["pids"].values(), {"Authorization": f"Bearer {stack.api_key}"}
        asked = {**BODY, "max_tokens": 1500, "ignore_eos": True, "stream": True}
        with httpx.stream("POST", f"{stack.url}/chat/completions", headers=headers, json=asked, timeout=60) as answer:
            lines = answer.iter_lines()
            assert next(lines).startswith("data: ")
            stack.process.send_signal(signal.SIGINT)
            until(lambda: chat_status(stack) == 0)
            assert stack.process.poll() is None, "it waits for the stream"
            began = time.monotonic()
            assert stack.stop(signal.SIGINT) == 130
            until(lambda: not any(is_alive(pid) for pid in pids))
            seconds = time.monotonic() - began
            rest: list[str] = []
            with contextlib.suppress(httpx.TransportError):
                rest.extend(lines)
            assert "data: [DONE]" not in rest
    record(
        "A second Ctrl-C for `vilix up` with an open stream (Triton by itself ignores a second SIGTERM, and ends after its "
        "--exit-timeout-secs)",
        f"all processes end at once: within {END_SECONDS:g} s",
        f"all {len(pids)} ended within {seconds:.2f} s",
        met=seconds < END_SECONDS,
    )


def test_the_key_file_is_private(stack: RunningStack) -> None:
    assert stat.S_IMODE((stack.directory / "api-key").stat().st_mode) == 0o600


def test_every_process_listens_on_loopback_only(stack: RunningStack) -> None:
    for port in stack.state["ports"].values():
        for family, address in ((socket.AF_INET, "127.0.0.2"), (socket.AF_INET6, "::1")):
            with socket.socket(family) as probe:
                probe.settimeout(2)
                assert probe.connect_ex((address, port)) != 0, f"port {port} answers on {address}"


@pytest.mark.parametrize("name", ["inference", "triton", "gateway", "valkey"])
def test_a_killed_process_is_started_again_and_the_service_returns(stack: RunningStack, name: str) -> None:
    killed = stack.state["pids"][name]
    began = time.monotonic()
    os.kill(killed, signal.SIGKILL)
    until(lambda: stack.state["pids"][name] != killed)
    until(lambda: chat_status(stack) == 200)
    seconds = time.monotonic() - began
    record(
        f"`vilix up` after the death of {name}",
        "it is started again, and the service returns by itself",
        f"a chat is answered again after {seconds:.1f} s",
        met=True,
    )


def test_a_port_in_use_is_one_clear_line(stack: RunningStack, tmp_path: Path) -> None:
    port = stack.state["ports"]["gateway"]
    result = vilix("up", "--port", str(port), "--state-dir", str(tmp_path), "--cache-dir", str(ROOT / ".cache"))
    assert result.returncode == 1
    assert result.stderr.startswith(f"error: port {port} on {LOOPBACK} is in use")
    assert result.stderr.count("\n") == 1


def test_a_second_stack_in_the_same_place_is_refused(stack: RunningStack) -> None:
    result = stack.vilix("up", "--port", "1")
    assert result.returncode == 1
    assert f"already running in {stack.directory}" in result.stderr
    assert str(stack.process.pid) in result.stderr


def test_several_stacks_run_side_by_side(stack: RunningStack, tmp_path: Path) -> None:
    with up(tmp_path) as other:
        assert other.url != stack.url
        assert other.api_key != stack.api_key
        assert chat_status(other) == chat_status(stack) == 200


def test_a_process_that_cannot_start_is_named_with_its_reason(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "valkey").mkdir()
    (tmp_path / "valkey/appendonlydir").write_text("in the way of Valkey's own directory")
    port = free_ports(1)[0]
    result = vilix("up", "--port", str(port), "--state-dir", str(tmp_path), "--cache-dir", str(ROOT / ".cache"))
    assert result.returncode == 1
    assert result.stderr.startswith("error: valkey stopped with exit code 1 before it was ready: ")
    assert result.stderr.count("\n") == 1
