"""The script that checks the engine on machines with a GPU, run with the stand-in for TensorRT-LLM."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench.trtllm import process_checks
from bench.trtllm.checks import CHECKS
from bench.trtllm.promises import PROMISES
from tests.stand_ins import trtllm as stand_in
from tests.support.repository import ROOT

PARIS: dict[str, Any] = {"token_ids": [*map(ord, "Paris."), stand_in.EOS]}
PENALTIES = {"presence_penalty", "frequency_penalty", "repetition_penalty"}
OF_1_3 = {*PENALTIES, "seed", "min_p", "min_tokens", "logit_bias", "bias_beside"}
OF_VISION = {"images", "image_sizes", "image_gap", "largest_image", "most_images", "text_beside_image"}
OF_THE_IMAGE = {"served", "death"}
# A rank that is a process of its own. Triton fails the description while it is stopped, and ends on SIGTERM.
TRITON = """#!{python}
import http.server, json, os, pathlib, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
rank = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)", "mpi4py.futures"])
port = next(int(a.partition("=")[2]) for a in sys.argv if a.startswith("--http-port="))

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        state = pathlib.Path(f"/proc/{{rank.pid}}/stat").read_text().split()[2]
        if "describe" in body["params"]:
            self.send_response(400 if state == "T" and {notices} else 200)
            self.end_headers()
            load = {{"load": {{"generated_tokens_total": 1}}}}
            self.wfile.write(json.dumps({{"description": json.dumps(load)}}).encode())
            return
        self.send_response(200)
        self.end_headers()
        if "max_tokens" not in body["params"]:
            time.sleep(1000)
        self.wfile.write(b'"finish_reason": "length"')

    def log_message(self, *_):
        pass

http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()
"""


def smoke(
    tmp_path: Path,
    *options: str,
    version: str,
    answer: dict[str, Any],
    architecture: str = stand_in.QWEN3,
) -> subprocess.CompletedProcess[str]:
    packages = stand_in.install(tmp_path / "packages", version=version)
    model = stand_in.write_checkpoint(tmp_path / "model", [answer], architecture=architecture, step_ms=0.2)
    # The script itself needs only numpy and Pillow; the stand-in needs pydantic.
    program = [sys.executable, "-W", "error", "-m", "bench.trtllm.gpu_smoke", str(model), *options]
    path = os.pathsep.join([str(packages), str(ROOT)])
    return subprocess.run(
        program,
        env={**os.environ, "PYTHONPATH": path},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


@pytest.mark.parametrize(
    ("version", "architecture", "skipped"),
    [
        ("1.2.1", stand_in.QWEN3, {*OF_1_3, *OF_VISION, *OF_THE_IMAGE}),
        ("1.2.1", stand_in.QWEN25_VL, {*OF_1_3, *OF_THE_IMAGE}),
        ("1.3.0rc29", stand_in.QWEN3_VL, {*OF_THE_IMAGE}),
    ],
)
def test_every_check_passes_or_is_skipped(tmp_path: Path, version: str, architecture: str, skipped: set[str]) -> None:
    done = smoke(
        tmp_path, "--json", "--context-length", "8192", version=version, answer=PARIS, architecture=architecture
    )
    report = json.loads(done.stdout)
    rows = {row["check"]: row for row in report["checks"]}
    assert {name for name, row in rows.items() if row["result"] == "FAILED"} == set(), done.stdout
    assert done.returncode == 0
    assert {name for name, row in rows.items() if row["result"] == "–"} == skipped
    assert {
        "import",
        "load",
        "tokens",
        "cancel",
        "logprobs",
        "structured_outputs",
        "images",
        "image_sizes",
        "image_gap",
        "close",
        *PENALTIES,
    } <= rows.keys()
    assert version in rows["import"]["detail"]
    not_shown = [promise for promise, verdict in report["promises"].items() if verdict == "not shown"]
    assert len(not_shown) == (2 if architecture != stand_in.QWEN3 else 3), not_shown
    assert set(report["promises"].values()) == {"holds", "not shown"}


def test_every_check_belongs_to_a_promise() -> None:
    shown = {check for checks in PROMISES.values() for check in checks}
    assert shown == CHECKS.keys() | OF_THE_IMAGE


@pytest.mark.parametrize("notices", [True, False])
def test_the_image_is_checked_from_its_start_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, notices: bool
) -> None:
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / process_checks.START
    program.write_text(TRITON.format(python=sys.executable, notices=notices))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setattr(process_checks, "NOTICE_SECONDS", 2)
    arguments = {"model": "/models/m", "context_length": 256}
    assert "stopped with status 0" in process_checks.served(arguments, 20)
    if notices:
        assert "noticed after" in process_checks.death(arguments, 20)
    else:
        with pytest.raises(AssertionError, match="still ready after 2 s"):
            process_checks.death(arguments, 20)


def test_the_report_ends_in_time(tmp_path: Path) -> None:
    done = smoke(tmp_path, "--json", "--seconds", "0", version="1.2.1", answer=PARIS)
    report = json.loads(done.stdout)
    assert {row["detail"] for row in report["checks"]} == {"there is not enough time left"}
    assert set(report["promises"].values()) == {"not shown"}


def test_the_table_names_the_checks_that_failed(tmp_path: Path) -> None:
    answer = {**PARIS, "top_without_chosen": True}
    done = smoke(tmp_path, "--only", "tokens", "logprobs", version="1.2.1", answer=answer)
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    ends = lines.index("failed: logprobs")
    assert [line.split()[:2] for line in lines[:ends]] == [
        ["ok", "import"],
        ["ok", "load"],
        ["ok", "tokens"],
        ["FAILED", "logprobs"],
        ["ok", "close"],
    ]
    assert "   BROKEN: every parameter that is offered has its effect" in lines[ends:]
    assert "    holds: a prompt gets the model's tokens, and a reason for their end" in lines[ends:]
    assert "not shown: structured output has its structure" in lines[ends:]


def test_a_model_that_cannot_be_loaded_is_reported(tmp_path: Path) -> None:
    done = smoke(tmp_path, "--arguments", '{"max_batch": 1}', version="1.2.1", answer=PARIS)
    assert done.returncode == 1
    assert "has no argument 'max_batch'" in done.stdout
    assert done.stderr == ""


def test_help_states_how_to_run_the_script() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bench.trtllm.gpu_smoke", "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert "--json" in done.stdout
    assert "make gpu-smoke MODEL=" in done.stdout
