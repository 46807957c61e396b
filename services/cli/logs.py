"""`vilix logs`: the logs of the local stack."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from typing import Annotated, Final

import typer
from rich.console import Console

from services.cli.failure import fail
from services.cli.log_lines import LogLine, LogReader
from services.cli.stack_state import RUN_DIR, StateDir

_POLL_SECONDS: Final = 0.2


def logs(
    name: Annotated[
        str,
        typer.Argument(metavar="[NAME]", help="A process, such as gateway, as vilix status shows it; default: all."),
    ] = "",
    *,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on with new lines, until Ctrl-C.")] = False,
    lines: Annotated[
        int, typer.Option("-n", "--lines", metavar="N", min=0, help="The number of older lines to show.")
    ] = 100,
    request_id: Annotated[
        str, typer.Option(metavar="ID", help="Only lines about one request: the id is its header x-request-id.")
    ] = "",
    probes: Annotated[
        bool, typer.Option("--probes", help="Also show successful requests for the gateway's health and activity.")
    ] = False,
    state_dir: StateDir = RUN_DIR,
    as_json: Annotated[bool, typer.Option("--json", help="Print the lines as they were written.")] = False,
) -> None:
    """Show the logs of the local stack in a readable form.

    Lines of several processes are in the order of their times. The logs of a stack stay until its next start.

    Examples:
      vilix logs
      vilix logs gateway -f
      vilix logs --request-id req-1f2e3d4c5b6a798012345678
    """
    directory = state_dir / "logs"
    known = sorted(path.stem for path in directory.glob("*.log"))
    if not known:
        fail(f"there are no logs in {directory}; start a stack with make run or vilix up")
    if name and name not in known:
        fail(f"there is no log of {name!r}; there are logs of {', '.join(known)}")
    reader = LogReader(lambda: sorted(directory.glob(f"{name or '*'}.log")))
    printer = _Printer(width=len(name) or max(map(len, known)), as_json=as_json, request_id=request_id, probes=probes)
    try:
        older = printer.wanted(reader.read())
        printer.show(older[max(0, len(older) - lines) :])
        if not older and not follow:
            about = f" about the request {request_id}" if request_id else ""
            print(f"There are no lines{about}.", file=sys.stderr)
        while follow:
            time.sleep(_POLL_SECONDS)
            printer.show(printer.wanted(reader.read()))
    except KeyboardInterrupt:
        return
    finally:
        reader.close()


class _Printer:
    def __init__(self, *, width: int, as_json: bool, request_id: str, probes: bool) -> None:
        self._console: Final = Console()
        self._width: Final = width
        self._as_json: Final = as_json
        self._request_id: Final = request_id
        self._probes: Final = probes

    def wanted(self, lines: Iterable[LogLine]) -> list[LogLine]:
        if self._request_id:
            return [line for line in lines if line.request_id == self._request_id]
        return [line for line in lines if self._probes or not line.is_probe]

    def show(self, lines: Iterable[LogLine]) -> None:
        for line in lines:
            if self._as_json:
                print(line.raw, flush=True)
            else:
                self._console.print(line.render(width=self._width), soft_wrap=True, highlight=False)
