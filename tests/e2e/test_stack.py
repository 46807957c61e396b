"""`vilix up`: the start, restarts, the stop and error messages."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import stat
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import psutil
import pytest

from services.gateway.tenancy import secret
from services.stack.ports import LOOPBACK, free_ports
from tests.e2e.stack import RunningStack, is_alive, up, vilix
from tests.support.fault_table import record, times
from tests.support.repository import ROOT
from tests.support.waits import block_until

END_SECONDS = 2.0
BACK_SECONDS = 15.0
DEATHS = times(3, 10)
NOTICED_SECONDS = 90
"""For a process that dies while Triton loads its model, Triton may wait without an end. It is restarted after 60 s."""
MODEL = "smollm2-135m"
CACHE = str(ROOT / ".cache")
BODY = {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2}


def chat_status(stack: RunningStack) -> int:
    """Return the status of a short chat request; 0 if nothing answers."""
    headers = {"Authorization": f"Bearer {stack.api_key}"}
    try:
        return httpx.post(f"{stack.url}/chat/completions", headers=headers, json=BODY, timeout=30).status_code
    except httpx.TransportError:
        return 0


@pytest.mark.timeout(240)
def test_a_signal_stops_all_processes_and_the_next_start_has_the_same_key(tmp_path: Path) -> None:
    with up(tmp_path) as stack:
        api_key = stack.api_key
        pids = stack.state["pids"].values()
        tritons = {"triton-smollm2-135m", "triton-multilingual-e5-small"}
        assert set(stack.state["pids"]) == {"valkey", *tritons, "inference", "embeddings", "gateway"}
        assert chat_status(stack) == 200
        assert stack.stop(signal.SIGINT) == 0
    assert not any(is_alive(pid) for pid in pids)
    assert not (tmp_path / "state.json").exists()

    # The next one runs in the background.
    started = stack.vilix("up", "-d", "--port", str(free_ports(1)[0]), "--model", MODEL, "--cache-dir", CACHE)
    try:
        assert started.returncode == 0, started.stderr
        assert f"/#key={api_key}" in started.stdout
        assert stack.vilix("up", "-d").stderr.count("already running") == 1
        assert chat_status(stack) == 200
        pids = stack.state["pids"].values()
    finally:
        stopped = stack.vilix("down")
    assert stopped.returncode == 0, stopped.stderr
    assert not any(is_alive(pid) for pid in pids)
    assert stack.vilix("down").stdout.startswith("No stack is running")
    assert stack.vilix("status").returncode == 1


def test_a_second_signal_kills_all_processes_at_once(tmp_path: Path) -> None:
    """This includes Triton, which itself ignores a second signal, and waits for its streams for half a minute."""
    with up(tmp_path) as stack:
        pids, headers = stack.state["pids"].values(), {"Authorization": f"Bearer {stack.api_key}"}
        body = {**BODY, "max_tokens": 1500, "ignore_eos": True, "stream": True}
        with httpx.stream("POST", f"{stack.url}/chat/completions", headers=headers, json=body, timeout=60) as response:
            lines = response.iter_lines()
            assert next(lines).startswith("data: ")
            stack.process.send_signal(signal.SIGINT)
            block_until(lambda: chat_status(stack) == 0)
            assert stack.process.poll() is None, "it waits for the stream"
            began = time.monotonic()
            assert stack.stop(signal.SIGINT) == 130
            block_until(lambda: not any(is_alive(pid) for pid in pids))
            seconds = time.monotonic() - began
            rest: list[str] = []
            with contextlib.suppress(httpx.TransportError):
                rest.extend(lines)
            assert "data: [DONE]" not in rest
    record(
        "A second Ctrl-C for `vilix up` with an open stream (Triton by itself ignores a second SIGTERM, and ends after "
        "its --exit-timeout-secs)",
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


def test_a_short_pause_of_valkey_delays_a_request_and_does_not_fail_it(stack: RunningStack) -> None:
    """A model that computes on all cores causes such pauses."""
    answers: list[int] = []
    headers = {"Authorization": f"Bearer {secret.draw('s00')}"}

    def ask() -> None:
        answers.append(httpx.get(f"{stack.url}/models", headers=headers, timeout=30).status_code)

    request = threading.Thread(target=ask)
    os.kill(stack.state["pids"]["valkey"], signal.SIGSTOP)
    try:
        request.start()
        # It ends if the gateway gives up.
        request.join(0.3)
    finally:
        os.kill(stack.state["pids"]["valkey"], signal.SIGCONT)
    request.join(30)
    assert answers == [401], "the key is looked up, and does not exist"


@pytest.mark.parametrize("name", ["inference", "triton-smollm2-135m", "gateway", "valkey"])
def test_a_killed_process_is_restarted_and_the_service_recovers(stack: RunningStack, name: str) -> None:
    killed = stack.state["pids"][name]
    began = time.monotonic()
    os.kill(killed, signal.SIGKILL)
    block_until(lambda: stack.state["pids"][name] != killed)
    block_until(lambda: chat_status(stack) == 200)
    seconds = time.monotonic() - began
    block_until(lambda: stack.state["processes"][name]["state"] == "ready")
    assert stack.state["processes"][name]["restarts"] >= 1
    record(
        f"`vilix up` after the death of {name}",
        "it is restarted, and the service recovers by itself",
        f"chats succeed again after {seconds:.1f} s",
        met=True,
    )


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "frozen"])
@pytest.mark.parametrize("model", ["smollm2-135m", "multilingual-e5-small"])
def test_a_killed_or_frozen_model_process_is_replaced_and_other_models_stay_available(
    stack: RunningStack, model: str, number: signal.Signals
) -> None:
    status = {"smollm2-135m": chat_status, "multilingual-e5-small": embeddings_status}
    other = next(name for name in status if name != model)
    block_until(lambda: all(ask(stack) == 200 for ask in status.values()))
    # The supervisor looks later than the worker. A model that freezes before it has answered is given time to start.
    block_until(lambda: all(process["state"] == "ready" for process in stack.state["processes"].values()))
    stub, server = model_process(stack, model), stack.state["pids"][f"triton-{model}"]
    began = time.monotonic()
    os.kill(stub, number)
    block_until(lambda: not is_available(stack, model))
    noticed = time.monotonic() - began
    assert is_available(stack, other)
    assert status[other](stack) == 200
    block_until(lambda: stack.state["pids"][f"triton-{model}"] != server)
    block_until(lambda: status[model](stack) == 200)
    seconds = time.monotonic() - began
    block_until(lambda: not is_alive(stub))
    record(
        f"`vilix up` after the process of {model} alone was {'killed' if number == signal.SIGKILL else 'frozen'}",
        f"detected, killed with its Triton and restarted, within {BACK_SECONDS:g} s; other models stay available",
        f"unavailable after {noticed:.1f} s, available again after {seconds:.1f} s; {other} answered meanwhile",
        met=seconds < BACK_SECONDS,
    )


@pytest.mark.timeout(60 + DEATHS * (NOTICED_SECONDS + 30))
def test_the_stack_survives_many_deaths_of_a_model_in_a_row(tmp_path: Path) -> None:
    with up(tmp_path) as stack:
        began = time.monotonic()
        for _ in range(DEATHS):
            server = stack.state["pids"]["triton-smollm2-135m"]
            block_until(
                lambda server=server: any("stub" in child.name() for child in psutil.Process(server).children())
            )
            os.kill(model_process(stack, "smollm2-135m"), signal.SIGKILL)
            block_until(
                lambda server=server: stack.state["pids"]["triton-smollm2-135m"] != server,
                NOTICED_SECONDS,
                "the Triton of the killed process is replaced",
            )
            assert embeddings_status(stack) == 200
        seconds = time.monotonic() - began
        block_until(lambda: chat_status(stack) == 200)
        assert stack.process.poll() is None
    record(
        f"`vilix up` after {DEATHS} deaths of a model's process in a row",
        "it stays up, other models answer meanwhile, and the model recovers",
        f"{DEATHS} deaths within {seconds:.0f} s; served again",
        met=True,
    )


def embeddings_status(stack: RunningStack) -> int:
    """Return the status of a short embeddings request; 0 if nothing answers."""
    headers = {"Authorization": f"Bearer {stack.api_key}"}
    body = {"model": "multilingual-e5-small", "input": "Hi"}
    try:
        return httpx.post(f"{stack.url}/embeddings", headers=headers, json=body, timeout=30).status_code
    except httpx.TransportError:
        return 0


def is_available(stack: RunningStack, model: str) -> bool:
    """Whether the gateway reports a model as available."""
    health = httpx.get(f"{stack.url.removesuffix('/api')}/healthz", timeout=10)
    assert health.status_code == 200, "the gateway is alive without its models"
    return bool(health.json()["models"][model])


def model_process(stack: RunningStack, model: str) -> int:
    """Return the id of the model's own process, which its Triton has started."""
    children = psutil.Process(stack.state["pids"][f"triton-{model}"]).children()
    return next(process.pid for process in children if "stub" in process.name())


def test_all_files_of_the_stack_are_private(tmp_path: Path) -> None:
    """This includes files that an earlier release left readable."""
    directory = tmp_path / "run"
    for name in ("logs", "valkey"):
        (directory / name).mkdir(parents=True)
        (directory / name).chmod(0o755)
    (directory / "logs" / "gateway.log.1").write_text("of an earlier run")
    (directory / "logs" / "gateway.log.1").chmod(0o644)
    directory.chmod(0o755)
    with up(directory):
        paths = [directory, *directory.rglob("*")]
        assert {"state.json", "api-key", "gateway.log", "gateway.log.1", "appendonlydir"} <= {p.name for p in paths}
        open_to_others = [str(path) for path in paths if path.lstat().st_mode & 0o077 and not path.is_symlink()]
        assert not open_to_others


def test_the_database_and_the_models_are_reachable_only_with_secrets_of_the_directory(stack: RunningStack) -> None:
    port = stack.state["ports"]["redis"]
    with socket.create_connection((LOOPBACK, port), timeout=5) as connection:
        connection.sendall(b"KEYS *\r\n")
        assert connection.recv(100).startswith(b"-NOAUTH")
    password = urlsplit(stack.state["redis_url"]).password
    assert password
    assert stack.vilix("keys", "list").returncode == 0
    processes = [psutil.Process(pid) for pid in stack.state["pids"].values()]
    processes += [child for process in processes for child in process.children(recursive=True)]
    for process in processes:
        assert not any(password in argument for argument in process.cmdline()), process.name()
    for name, pid in stack.state["pids"].items():
        if name.startswith("triton-"):
            listening = [c for c in psutil.Process(pid).net_connections("inet") if c.status == psutil.CONN_LISTEN]
            assert not listening, name


def test_a_state_directory_that_all_users_share_is_rejected(tmp_path: Path) -> None:
    directory = tmp_path / "shared"
    directory.mkdir()
    directory.chmod(0o1777)
    result = vilix("up", "--port", str(free_ports(1)[0]), "--state-dir", str(directory))
    assert result.returncode == 1
    assert "is shared by all users of this machine" in result.stderr
    assert stat.S_IMODE(directory.stat().st_mode) == 0o1777


def test_a_state_directory_that_cannot_be_made_is_reported_in_one_line() -> None:
    for options in ((), ("-d",)):
        result = vilix("up", *options, "--port", str(free_ports(1)[0]), "--state-dir", "/proc/x")
        assert result.returncode == 1
        assert result.stderr.startswith("error: /proc/x cannot be the state directory")
        assert result.stderr.count("\n") == 1


def test_a_port_in_use_is_reported_in_one_line(stack: RunningStack, tmp_path: Path) -> None:
    port = stack.state["ports"]["gateway"]
    result = vilix("up", "--port", str(port), "--state-dir", str(tmp_path), "--cache-dir", str(ROOT / ".cache"))
    assert result.returncode == 1
    assert result.stderr.startswith(f"error: port {port} on {LOOPBACK} is in use")
    assert f"make run PORT={port + 1}, or vilix up --port {port + 1}" in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_second_stack_in_the_same_directory_is_rejected(stack: RunningStack) -> None:
    result = stack.vilix("up", "--port", "1")
    assert result.returncode == 1
    assert f"already running in {stack.directory}" in result.stderr
    assert str(stack.process.pid) in result.stderr


def test_several_stacks_run_at_the_same_time_and_in_a_deep_directory(stack: RunningStack, tmp_path: Path) -> None:
    """The path of a Unix socket has a limit, which the directory's path exceeds."""
    with up(tmp_path / ("deep" * 20) / ("deeper" * 10)) as other:
        assert other.url != stack.url
        assert other.api_key != stack.api_key
        assert chat_status(other) == chat_status(stack) == 200


def test_a_process_that_cannot_start_is_reported_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "valkey").mkdir()
    (tmp_path / "valkey/appendonlydir").write_text("in the way of Valkey's own directory")
    port = free_ports(1)[0]
    options = ("--model", "smollm2-135m", "--state-dir", str(tmp_path), "--cache-dir", str(ROOT / ".cache"))
    result = vilix("up", "--port", str(port), *options)
    assert result.returncode == 1
    assert result.stderr.startswith("error: valkey stopped with exit code 1 before it was ready: ")
    assert result.stderr.count("\n") == 1
