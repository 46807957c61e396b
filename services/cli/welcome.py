"""The text that greets the user of a stack: what to open first, then what to type."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from rich.markup import escape

from services.cli.stack_state import RUN_DIR

_INSTALLED: Final = Path(".venv/bin/vilix")


@dataclass(frozen=True)
class Welcome:
    """The facts about a stack that has just started."""

    state: Mapping[str, Any]
    """The contents of `state.json`."""
    api_key: str
    state_dir: Path
    seconds: float
    """The duration of the start."""
    in_background: bool

    def render(self) -> str:
        """Return the text, with the markup of rich."""
        key_file, url = self.state_dir / "api-key", self.state["url"]
        chat, embeddings = self.state["inference_target"], self.state["embeddings_target"]
        return f"""
[bold]Vilix is ready[/] ({self.seconds:.1f} s)

  Page [bold]{self._page()}[/]
       the documentation and a playground; the link brings your key along, so do not share it
  Chat [bold]{escape(self._command("chat"))}[/]
  API  [bold]{url}[/]
  Key  [bold]{self.api_key}[/]  (also in {escape(str(key_file))})
  gRPC {chat}  (chat) and {embeddings}  (embeddings), for internal services

Or with curl:

  curl -N {url}/chat/completions \\
    -H "Authorization: Bearer $(cat {escape(shlex.quote(str(key_file)))})" -H "Content-Type: application/json" \\
    -d '{{"model": "{self.state["models"][0]["id"]}", "stream": true,
         "messages": \\[{{"role": "user", "content": "Write a Python function that reverses a string."}}]}}'

{self._models()}

{self._afterwards()}
"""

    def facts(self) -> dict[str, Any]:
        """Return the same as a value for programs."""
        return {
            "url": self.state["url"],
            "page": self._page(),
            "api_key": self.api_key,
            "api_key_file": str(self.state_dir / "api-key"),
            "inference_target": self.state["inference_target"],
            "embeddings_target": self.state["embeddings_target"],
            "models": self.state["models"],
            "seconds": round(self.seconds, 1),
        }

    def _page(self) -> str:
        # The fragment of a URL is not sent to a server, and the page removes it from the address at once.
        return f"{self.state['url'].removesuffix('/api')}/#key={self.api_key}"

    def _command(self, name: str) -> str:
        directory = "" if self.state_dir == RUN_DIR else f" --state-dir {shlex.quote(str(self.state_dir))}"
        # In the repository, the command is not on the path of a shell.
        program = _INSTALLED if _INSTALLED.exists() else "vilix"
        return f"{program} {name}{directory}"

    def _models(self) -> str:
        return "\n".join(escape(f"{model['id']}: {model['description']}") for model in self.state["models"])

    def _afterwards(self) -> str:
        status, logs = escape(self._command("status")), escape(self._command("logs -f"))
        watch = f"  {status}  shows what runs, and {logs}  what happens."
        if self.in_background:
            return f"The stack runs in the background.\n{watch}\n  {escape(self._command('down'))}  stops everything."
        return f"{watch}\nCtrl-C stops everything."
