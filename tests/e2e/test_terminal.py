"""The commands that show a running stack, and `vilix run`."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import httpx

from tests.e2e.stack import VILIX, RunningStack
from tests.support.terminal import on_terminal

MODEL = "smollm2-135m"
REQUEST_ID = "the-request-of-a-test"


def body(**fields: object) -> dict[str, object]:
    return {"model": MODEL, "messages": [{"role": "user", "content": "Tell me a long story."}], **fields}


@contextmanager
def streaming(stack: RunningStack) -> Iterator[None]:
    """Run a request whose stream goes on until the context ends."""
    headers = {"Authorization": f"Bearer {stack.api_key}", "X-Request-Id": REQUEST_ID}
    fields = body(stream=True, max_tokens=1900, ignore_eos=True)
    with httpx.stream("POST", f"{stack.url}/chat/completions", headers=headers, json=fields, timeout=60) as response:
        lines = response.iter_lines()
        for line in lines:
            if '"content":"' in line.replace(" ", ""):
                break
        has_ended = threading.Event()

        def drain() -> None:
            for _ in lines:
                if has_ended.is_set():
                    return

        reader = threading.Thread(target=drain)
        reader.start()
        try:
            yield
        finally:
            has_ended.set()
            reader.join(60)


def test_the_welcome_begins_with_what_to_click(stack: RunningStack) -> None:
    site = stack.url.removesuffix("/api")
    lines = [line.strip() for line in stack.welcome.partition("Vilix is ready")[2].splitlines()]
    order = [f"Page {site}/#key={stack.api_key}", "Chat ", f"API  {stack.url}", f"curl -N {stack.url}"]
    found = [next(index for index, line in enumerate(lines) if line.startswith(text)) for text in order]
    assert found == sorted(found)


def test_status_lists_processes_and_models(stack: RunningStack) -> None:
    result = stack.vilix("status")
    assert result.returncode == 0, result.stdout
    for name in ("valkey", "inference", "embeddings", "gateway", f"triton-{MODEL}", MODEL, "multilingual-e5-small"):
        assert name in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 80
    status = json.loads(stack.vilix("status", "--json").stdout)
    assert (status["running"], status["ready"], status["url"]) == (True, True, stack.url)
    processes = {process["name"]: process for process in status["processes"]}
    assert {name: process["pid"] for name, process in processes.items()} == stack.state["pids"]
    # The memory of a Triton is that of its model's process, too.
    assert processes[f"triton-{MODEL}"]["memory_bytes"] > 100 * 2**20
    models = {model["id"]: model for model in status["models"]}
    assert models[MODEL]["engines"][0]["slots"] >= 1


def test_top_shows_who_generates_what_and_how_fast(stack: RunningStack) -> None:
    argv = [VILIX, "top", "--state-dir", str(stack.directory), "--interval", "0.2"]
    with streaming(stack), on_terminal(argv) as (screen, process):
        screen.wait_for("generating")
        screen.wait_for("development")
        screen.type("\x03")
        assert process.wait(20) == 0
        screen.read_rest()
        assert "1 request," in screen.text
        assert "Traceback" not in screen.text
        (request,) = json.loads(stack.vilix("top", "--json").stdout)["requests"]
        assert (request["request_id"], request["model"]) == (REQUEST_ID, MODEL)
        assert request["tokens_per_second"] > 0


def test_top_reads_another_deployment_only_with_its_token(stack: RunningStack) -> None:
    url = stack.state["admin_url"]
    for token, problem in (("wrong", "does not accept the token"), ("", "set the variable VILIX_ADMIN_TOKEN")):
        argv = ["env", f"VILIX_ADMIN_TOKEN={token}", VILIX, "top", "--url", url]
        result = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
        assert result.returncode == 1
        assert problem in result.stderr
        assert result.stderr.count("\n") == 1


def test_logs_show_one_request_in_all_processes_and_follow(stack: RunningStack) -> None:
    argv = [VILIX, "logs", "-f", "--request-id", f"{REQUEST_ID}-2", "--state-dir", str(stack.directory)]
    with on_terminal(argv) as (screen, process):
        headers = {"Authorization": f"Bearer {stack.api_key}", "X-Request-Id": f"{REQUEST_ID}-2"}
        response = httpx.post(f"{stack.url}/chat/completions", headers=headers, json=body(max_tokens=2), timeout=60)
        assert response.status_code == 200
        screen.wait_for("POST /api/chat/completions 200")
        screen.wait_for("generate")
        screen.type("\x03")
        assert process.wait(20) == 0
    printed = stack.vilix("logs", "--request-id", f"{REQUEST_ID}-2", "--json").stdout.splitlines()
    assert {json.loads(line)["service"] for line in printed} == {"gateway", "inference"}
    # Without the probes of health, the log of an idle gateway is quiet.
    assert "/healthz" not in stack.vilix("logs", "gateway").stdout
    assert "there is no log of 'nobody'" in stack.vilix("logs", "nobody").stderr


def test_run_answers_a_question_from_the_command_line_and_from_a_pipe(stack: RunningStack) -> None:
    result = stack.vilix("run", MODEL, "What is the capital of France?", "--max-tokens", "20")
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip()
    argv = [VILIX, "run", MODEL, "--json", "--max-tokens", "5", "--state-dir", str(stack.directory)]
    piped = subprocess.run(argv, input="Hello!", capture_output=True, text=True, timeout=60, check=False)
    answer = json.loads(piped.stdout)
    assert answer["model"] == MODEL
    assert 1 <= answer["completion_tokens"] <= 5
    assert answer["answer"]
    unknown = stack.vilix("run", "nobody", "Hello!")
    assert unknown.returncode == 1
    assert unknown.stderr.startswith("error: ")
    assert unknown.stderr.count("\n") == 1


def test_doctor_finds_nothing_wrong_with_a_running_stack(stack: RunningStack) -> None:
    findings = json.loads(stack.vilix("doctor", "--json").stdout)
    assert [finding for finding in findings if finding["verdict"] == "bad"] == []
    assert {"gateway", "redis", "model", "key"} <= {finding["subject"] for finding in findings}


def test_doctor_says_what_is_wrong_with_a_deployment(stack: RunningStack) -> None:
    argv = ["env", "VILIX_API_KEY=vlx_wrong", VILIX, "doctor", "--url", stack.url]
    result = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 1
    assert "rejected with status 401" in result.stdout


def test_the_list_of_keys_has_the_last_use(stack: RunningStack) -> None:
    headers = {"Authorization": f"Bearer {stack.api_key}"}
    assert httpx.post(f"{stack.url}/chat/completions", headers=headers, json=body(max_tokens=2), timeout=60).is_success
    keys = {key["name"]: key for key in json.loads(stack.vilix("keys", "list", "--json").stdout)}
    assert keys["development"]["last_used"] > keys["development"]["created"] - 1
    assert keys["development"]["month"]["completion_tokens"] >= 2
