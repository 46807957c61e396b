"""Codex as its users run it: unmodified, with a home directory of its own, and without a network but the gateway."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.support.agent_system import AGENTS

CODEX: Final = AGENTS / "@openai/codex-linux-x64/vendor/x86_64-unknown-linux-musl/bin/codex"
TURN_SECONDS: Final = 100


@dataclass(frozen=True)
class Turn:
    """What Codex reported about a turn."""

    events: list[dict[str, Any]]
    error_output: str

    @property
    def thread_id(self) -> str:
        return next(str(event["thread_id"]) for event in self.events if event["type"] == "thread.started")

    def items(self, kind: str) -> list[dict[str, Any]]:
        """Return the completed items of a kind, such as `agent_message`."""
        completed = [event["item"] for event in self.events if event["type"] == "item.completed"]
        return [item for item in completed if item["type"] == kind]

    def problems(self) -> list[dict[str, Any]]:
        return [event for event in self.events if event["type"] in ("error", "turn.failed")]


class Codex:
    """Codex with a configuration, in an empty directory of work."""

    def __init__(self, directory: Path, configuration: str, api_key: str) -> None:
        """Write `configuration` as config.toml into a new home directory in `directory`."""
        self._home = directory / "home"
        self._work = directory / "work"
        (self._home / ".codex").mkdir(parents=True)
        (self._home / ".codex" / "config.toml").write_text(configuration)
        self._work.mkdir()
        self._api_key = api_key

    def run(self, prompt: str, *, thread: str = "") -> Turn:
        """Run a turn, of an earlier thread if one is given, and return what Codex reported."""
        resume = ["resume", thread] if thread else []
        argv = [str(CODEX), "exec", "--json", "--skip-git-repo-check", *resume, prompt]
        environment = {
            "HOME": str(self._home),
            "CODEX_HOME": str(self._home / ".codex"),
            "PATH": "/usr/bin:/bin",
            "VILIX_API_KEY": self._api_key,
        }
        process = subprocess.run(
            argv,
            cwd=self._work,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TURN_SECONDS,
            check=False,
        )
        events = [json.loads(line) for line in process.stdout.splitlines() if line.startswith("{")]
        return Turn(events, process.stderr)
