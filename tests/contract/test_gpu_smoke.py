"""The script that checks the engine on machines with a GPU, run with the stand-in for TensorRT-LLM."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.stand_ins import trtllm as stand_in
from tests.support.repository import ROOT

PARIS: dict[str, Any] = {"token_ids": [*map(ord, "Paris."), stand_in.EOS]}
PENALTIES = {"presence_penalty", "frequency_penalty", "repetition_penalty"}


def smoke(
    tmp_path: Path, *options: str, version: str, answer: dict[str, Any], architecture: str = stand_in.QWEN3
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
        ("1.2.1", stand_in.QWEN3, {*PENALTIES, "seed", "min_p", "images", "image_sizes", "image_gap"}),
        ("1.3.0rc29", stand_in.QWEN3_VL, set()),
    ],
)
def test_every_check_passes_or_is_skipped(tmp_path: Path, version: str, architecture: str, skipped: set[str]) -> None:
    done = smoke(
        tmp_path, "--json", "--context-length", "8192", version=version, answer=PARIS, architecture=architecture
    )
    rows = {row["check"]: row for row in json.loads(done.stdout)}
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


def test_the_table_names_the_checks_that_failed(tmp_path: Path) -> None:
    answer = {**PARIS, "top_without_chosen": True}
    done = smoke(tmp_path, "--only", "tokens", "logprobs", version="1.2.1", answer=answer)
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    assert [line.split()[:2] for line in lines[:-1]] == [
        ["ok", "import"],
        ["ok", "load"],
        ["ok", "tokens"],
        ["FAILED", "logprobs"],
        ["ok", "close"],
    ]
    assert lines[-1] == "failed: logprobs"


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
