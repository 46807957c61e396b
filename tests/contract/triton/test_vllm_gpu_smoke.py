"""The script that checks the engine vllm on machines with a GPU, run with the real vLLM on a CPU and random weights."""

from __future__ import annotations

import json
import os
import subprocess

from bench.vllm.checks import CHECKS, OF_LEARNED
from services.stack import qwen3_tokenizer
from tests.support import vllm_models
from tests.support.environments import python_of
from tests.support.repository import ROOT

pytestmark = vllm_models.MARKS
TOKENIZER = ROOT / ".cache" / "models" / "qwen3-tokenizer"


def test_every_check_holds_with_vllm_on_a_cpu() -> None:
    qwen3_tokenizer.fetch(TOKENIZER)
    options = ["--shape", "tiny", "--tokenizer", str(TOKENIZER), "--slots", "16", "--context-length", "1024"]
    options += ["--arguments", json.dumps(vllm_models.ARGUMENTS), "--concurrent", "4", "--without-triton", "--json"]
    ended = subprocess.run(
        [python_of(vllm_models.ENVIRONMENT), "-m", "bench.vllm.gpu_smoke", *options],
        cwd=ROOT,
        env={**os.environ, "TORCHDYNAMO_DISABLE": "1"},
        check=False,
        capture_output=True,
        text=True,
        timeout=vllm_models.LOAD_SECONDS,
    )
    assert ended.returncode == 0, ended.stdout[-3000:] + ended.stderr[-3000:]
    results = {row["check"]: row["result"] for row in json.loads(ended.stdout)["checks"]}
    expected = {"load", "version", *CHECKS, "direct 4", "engine 4", "close"} - set(OF_LEARNED)
    assert results == dict.fromkeys(expected, "ok")
