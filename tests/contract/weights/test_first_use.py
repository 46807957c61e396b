"""`vilix up` downloads the weights of its model, and can be stopped meanwhile."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from services.inference.model.catalog import load_model
from services.stack.ports import free_ports
from tests.contract.weights.gguf_sources import CONTENT, running_sources
from tests.support.repository import ROOT
from tests.support.waits import block_until

MODEL = "qwen2.5-coder-0.5b"


def test_a_download_that_stands_still_can_be_interrupted_and_is_kept(tmp_path: Path) -> None:
    gguf = load_model(MODEL).gguf
    assert gguf is not None
    with running_sources() as sources:
        sources.files[f"/{gguf.repository}/resolve/{gguf.revision}/{gguf.file}"] = CONTENT
        sources.hold_after = 2_000_000
        options = ["--model", MODEL, "--port", str(free_ports(1)[0])]
        process = subprocess.Popen(
            [str(Path(sys.executable).with_name("vilix")), "up", *options],
            cwd=tmp_path,
            env={**os.environ, "HF_ENDPOINT": sources.url, "no_proxy": "127.0.0.1", "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            partial = tmp_path / ".cache" / "weights" / f"{gguf.file}.partial"
            block_until(lambda: partial.exists() and partial.stat().st_size > 1_000_000)
            process.send_signal(signal.SIGINT)
            output, _ = process.communicate(timeout=20)
        finally:
            process.kill()
            process.wait()
    assert process.returncode == 0, output
    assert "Traceback" not in output
    assert f"preparing {MODEL}" in output
    assert "of 491 MB" in output
    assert partial.exists()
    assert not (tmp_path / ".cache" / "weights" / gguf.file).exists()
