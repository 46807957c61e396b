"""Logs: JSON lines in files, and lines for people on a terminal."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys

from services.runtime.telemetry import without_keys

PROGRAM = """
import logging
from services.runtime.telemetry import configure_logging
configure_logging("gateway")
logging.getLogger("test").info("request", extra={"model": "qwen3-8b", "path": "a\\x1b[2Jb"})
"""


def test_logs_in_a_file_are_json_lines() -> None:
    log = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, check=True, text=True).stderr
    line = json.loads(log)
    assert (line["level"], line["service"], line["message"]) == ("info", "gateway", "request")
    assert line["model"] == "qwen3-8b"


def test_logs_on_a_terminal_are_readable_and_have_no_control_characters() -> None:
    reader, terminal = pty.openpty()
    try:
        subprocess.run([sys.executable, "-c", PROGRAM], stderr=terminal, check=True)
        line = os.read(reader, 4096).decode()
    finally:
        os.close(reader)
        os.close(terminal)
    assert "request model=qwen3-8b" in line
    assert "{" not in line
    assert "\x1b" not in line


def test_api_keys_are_removed_from_log_lines() -> None:
    key = "vlx_" + "aB3" * 12
    text = without_keys(f"the model '{key}' does not exist; {key[:20]}... neither, vlx_ is no key")
    assert text == "the model 'vlx_…' does not exist; vlx_…... neither, vlx_ is no key"
    program = (
        PROGRAM
        + f"""
try:
    raise ValueError("{key}")
except ValueError:
    logging.getLogger("{key}").exception("{key}", extra={{"a": ["{key}"]}})
"""
    )
    log = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, text=True).stderr
    assert "ValueError" in log
    assert key not in log
