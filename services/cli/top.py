"""`vilix top`: the requests and models of a deployment, live."""

from __future__ import annotations

import sys
import time
from typing import Annotated, Any, Final

import typer
from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from services.cli.activity_tables import models_table, requests_table
from services.cli.admin_access import Gateways, UnreadableError, find_gateways
from services.cli.failure import fail
from services.cli.json_output import AsJson, print_json
from services.cli.stack_state import RUN_DIR, StateDir

_OTHER_LINES: Final = 8
"""The lines of the screen that are neither of models nor of requests."""


def top(
    *,
    url: Annotated[
        list[str] | None,
        typer.Option(
            metavar="HOST:PORT",
            envvar="VILIX_ADMIN_URL",
            help="The admin API of a gateway, HOST and port. Repeat it for each gateway, because each knows its own "
            "requests only. Default: the running local stack.",
        ),
    ] = None,
    interval: Annotated[float, typer.Option(metavar="SECONDS", min=0.2, help="Seconds between two looks.")] = 1.0,
    once: Annotated[bool, typer.Option("--once", help="Look once, and exit.")] = False,
    state_dir: StateDir = RUN_DIR,
    as_json: AsJson = False,
) -> None:
    """Watch the requests and models of a deployment live.

    Shows for each request its key, model, phase, time to the first token and speed, and for each model its slots, queue
    and KV cache. Prompts and responses are never shown. Ctrl-C exits. The token of the admin API is read from
    VILIX_ADMIN_TOKEN, or else from the running local stack. With --json, or where the output is no terminal, it looks
    once.

    Examples:
      vilix top
      vilix top --json
      vilix top --url http://10.0.4.20:9400 --url http://10.0.4.21:9400
    """
    gateways = find_gateways(url or [], state_dir)
    console = Console()
    try:
        if as_json:
            print_json(gateways.read())
        elif once or not sys.stdout.isatty():
            console.print(_screen(gateways.read(), gateways, width=console.width, lines=sys.maxsize))
        else:
            _watch(gateways, console, interval)
    except UnreadableError as error:
        fail(str(error))
    except KeyboardInterrupt:
        return


def _watch(gateways: Gateways, console: Console, interval: float) -> None:
    activity = gateways.read()
    with Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            try:
                activity, problem = gateways.read(), ""
            except UnreadableError as error:
                # A gateway that is restarted comes back.
                problem = str(error)
            screen = _screen(activity, gateways, width=console.width, lines=console.height, problem=problem)
            live.update(screen, refresh=True)
            time.sleep(interval)


def _screen(activity: dict[str, Any], gateways: Gateways, *, width: int, lines: int, problem: str = "") -> Group:
    models, requests, total = activity["models"], activity["requests"], activity["requests_total"]
    rate = sum(engine["tokens_per_second"] for model in models for engine in model["engines"])
    where = ", ".join(gateways.urls)
    title = Text.assemble(
        ("vilix top", "bold"),
        f"  {time.strftime('%H:%M:%S')}  {_count(total, 'request')}, {rate:.1f} tokens/s  ",
        (where, "dim"),
    )
    title.truncate(width, overflow="ellipsis")
    shown = requests[: max(1, lines - len(models) - _OTHER_LINES)]
    table = requests_table(shown, width=width) if shown else Text("No request is running.", style="dim")
    more = total - len(shown)
    last = Text(problem, style="yellow") if problem else Text(f"and {more} more" if more else "", style="dim")
    return Group(title, Text(), models_table(models, width=width), Text(), table, last)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
