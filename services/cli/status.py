"""`vilix status`: the processes and models of the local stack."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any, Final

import typer
from rich.console import Console

from services.cli.activity_tables import models_table
from services.cli.admin_access import UnreadableError, find_gateways
from services.cli.json_output import AsJson, print_json
from services.cli.processes import ProcessUse, use_of_sessions
from services.cli.stack_state import RUN_DIR, StateDir, read_state
from services.cli.table import Column, make_table
from services.stack.exclusive import running_pid

_PORTS: Final = {"gateway": "gateway", "valkey": "redis", "inference": "inference", "embeddings": "embeddings"}
"""The names under which `state.json` has the ports of processes. Tritons listen on sockets of the state directory."""
_COLUMNS: Final = (
    Column("process"),
    Column("state"),
    Column("address", rank=1),
    Column("pid", justify="right"),
    Column("up", justify="right"),
    Column("memory", justify="right"),
    Column("restarts", rank=2, justify="right"),
)


def status(*, state_dir: StateDir = RUN_DIR, as_json: AsJson = False) -> None:
    """Show the processes and the models of the local stack.

    Exits with 1 if no stack is running, or a process or a model of it is not ready.

    Examples:
      vilix status
      vilix status --json
    """
    pid, state = running_pid(state_dir), read_state(state_dir)
    if pid is None or state is None:
        if as_json:
            print_json({"running": False})
        else:
            starting = "is starting or stopping" if pid is not None else "is running"
            print(f"{'A' if pid is not None else 'No'} stack {starting} in {state_dir}.")
        raise typer.Exit(1)
    processes = _processes(state)
    activity, problem = _activity(state_dir)
    is_ready = all(one["state"] == "ready" for one in processes) and all(one["available"] for one in activity["models"])
    if as_json:
        facts = {"running": True, "ready": is_ready, "pid": pid, "url": state["url"], "processes": processes}
        print_json({**facts, "models": activity["models"], "requests": activity["requests_total"]})
    else:
        _show(state, processes, activity, problem)
    if not is_ready:
        raise typer.Exit(1)


def _processes(state: dict[str, Any]) -> list[dict[str, Any]]:
    uses, now = use_of_sessions(), time.time()
    processes = []
    for name, process in state["processes"].items():
        use = uses.get(process["pid"], ProcessUse(0, 0.0))
        port = state["ports"].get(_PORTS.get(name, ""))
        processes.append(
            {
                "name": name,
                "state": process["state"],
                "pid": process["pid"],
                "address": "" if port is None else f"127.0.0.1:{port}",
                "seconds": round(now - process["started"], 1),
                "memory_bytes": use.memory_bytes,
                "cpu_seconds": round(use.cpu_seconds, 2),
                "restarts": process["restarts"],
            }
        )
    return processes


def _activity(state_dir: Path) -> tuple[dict[str, Any], str]:
    """Return the activity of the gateway, and in one line why there is none."""
    try:
        return find_gateways([], state_dir).read(), ""
    except UnreadableError as error:
        return {"models": [], "requests": [], "requests_total": 0}, str(error)


def _show(state: dict[str, Any], processes: list[dict[str, Any]], activity: dict[str, Any], problem: str) -> None:
    console = Console()
    rows = [
        (
            one["name"],
            one["state"],
            one["address"],
            str(one["pid"]),
            duration(one["seconds"]),
            f"{one['memory_bytes'] / 2**20:,.0f} MiB",
            str(one["restarts"] or ""),
        )
        for one in processes
    ]
    memory = sum(one["memory_bytes"] for one in processes)
    console.print(f"[bold]{state['url']}[/]  process {state['pid']}", highlight=False, soft_wrap=True)
    console.print()
    console.print(make_table(_COLUMNS, rows, width=console.width))
    console.print()
    if problem:
        console.print(problem, style="yellow", markup=False, highlight=False, soft_wrap=True)
    else:
        console.print(models_table(activity["models"], width=console.width))
        console.print()
    total, cores = activity["requests_total"], os.cpu_count()
    running = f"{total} request{'' if total == 1 else 's'} running"
    console.print(f"{running}, {memory / 2**30:.1f} GiB of memory, {cores} cores", highlight=False)


def duration(seconds: float) -> str:
    """Return a duration in its largest unit, such as `42 s`, `5 min`, `3 h` or `12 d`."""
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= length * (1 if unit != "min" else 2):
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"
