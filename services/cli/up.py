"""`vilix up`: run the whole system on this machine."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Protocol

import typer
from rich.console import Console
from rich.markup import escape

from services.cli import background
from services.cli.foreground import alone_in_foreground
from services.cli.json_output import print_json
from services.cli.stack_state import RUN_DIR, StateDir, read_state
from services.cli.welcome import Welcome
from services.stack.display import Display
from services.stack.local import Options, Stack, running
from services.stack.supervisor import StackError


class Greeting(Protocol):
    """The output of `vilix up` once the stack is ready."""

    def __call__(self, seconds: float, /, *, in_background: bool) -> None:
        """Print it. `seconds` is the duration of the start."""


def up(
    *,
    port: Annotated[
        int, typer.Option(metavar="PORT", min=1, max=65535, help="The gateway's port on 127.0.0.1.")
    ] = 8000,
    detach: Annotated[
        bool, typer.Option("-d", "--detach", help="Run in the background, and return once the stack is ready.")
    ] = False,
    state_dir: StateDir = RUN_DIR,
    cache_dir: Annotated[Path, typer.Option(metavar="DIR", help="The directory for prepared models.")] = Path(".cache"),
    model: Annotated[
        str | None,
        typer.Option(
            metavar="ID",
            help="The model of the catalog to serve, as vilix models list shows it. Its weights are downloaded once. "
            "By default one that fits this machine, or none with --gguf.",
        ),
    ] = None,
    gguf: Annotated[
        list[str] | None,
        typer.Option(metavar="ID=PATH", help="Serve your own GGUF file under an id of the catalog. Repeatable."),
    ] = None,
    mmproj: Annotated[
        list[str] | None,
        typer.Option(metavar="ID=PATH", help="The vision projector (GGUF) of a model of --gguf. Repeatable."),
    ] = None,
    context_length: Annotated[
        int | None,
        typer.Option(
            metavar="TOKENS",
            min=1,
            help="The longest prompt and answer together, for models in GGUF. By default 8192 or less, for the memory "
            "of a laptop; coding agents need 32768.",
        ),
    ] = None,
    as_json: Annotated[
        bool,
        typer.Option("--json", help="Print the addresses and the key as JSON once all is ready; the rest on stderr."),
    ] = False,
    demo_thinking: Annotated[  # a flag of the command line
        bool,
        typer.Option(
            "--demo-thinking", help="Also serve replay-thinking: recorded responses with reasoning and tool calls."
        ),
    ] = False,
    in_background: Annotated[
        bool, typer.Option("--in-background", hidden=True, help="Greet nobody: vilix up -d does.")
    ] = False,
    own_foreground: Annotated[
        bool, typer.Option("--own-foreground", hidden=True, help="Keep Ctrl-C from the program that started this one.")
    ] = False,
) -> None:
    """Start the whole system on this machine.

    That is Valkey, a Triton for each model, the workers and the gateway, all on 127.0.0.1. The stack runs until Ctrl-C
    or SIGTERM, which stops everything in order; a second one kills everything at once. With -d it runs in the
    background until vilix down.

    Examples:
      vilix up
      vilix up -d
      vilix up -d --json
      vilix up --model qwen2.5-coder-0.5b
      vilix up --port 8001 --state-dir .run2
      vilix up --context-length 32768
      vilix up --gguf qwen3-8b=Qwen3-8B-Q4_K_M.gguf
      vilix up --gguf qwen3-vl=Qwen3VL-8B-Q4_K_M.gguf --mmproj qwen3-vl=mmproj-Qwen3VL-8B-F16.gguf
      vilix up --demo-thinking
    """
    options = Options(
        port, state_dir, cache_dir, tuple(gguf or ()), tuple(mmproj or ()), model, context_length, demo_thinking
    )
    console = Console(stderr=as_json)
    greet = partial(_print_as_json if as_json else _greet, options, console)
    try:
        if detach:
            _start_in_background(options, console, greet)
            return
        with alone_in_foreground() if own_foreground else contextlib.nullcontext(lambda: None) as give_back:
            asyncio.run(_up(options, console, give_back, None if in_background else greet))
    except StackError as error:
        print(f"error: {error}", file=sys.stderr)
        raise typer.Exit(1) from None


async def _up(
    options: Options, console: Console, give_back_terminal: Callable[[], None], greet: Greeting | None
) -> None:
    began = time.monotonic()
    stop = asyncio.Event()
    stack: Stack | None = None

    def on_signal() -> None:
        if stop.is_set():
            if stack is not None:
                stack.supervisor.kill()
            give_back_terminal()
            os._exit(130)
        stop.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, on_signal)

    async def run() -> None:
        nonlocal stack
        async with running(options, Display(console)) as stack:
            if greet is not None:
                greet(time.monotonic() - began, in_background=False)
            await stack.supervisor.wait_until_failure()

    stack_task = asyncio.create_task(run())
    stop_task = asyncio.create_task(stop.wait())
    await asyncio.wait({stack_task, stop_task}, return_when=asyncio.FIRST_COMPLETED)
    if stop_task.done():
        stack_task.cancel()
        await asyncio.gather(stack_task, return_exceptions=True)
        return
    stop_task.cancel()
    await stack_task


def _start_in_background(options: Options, console: Console, greet: Greeting) -> None:
    def show(line: str) -> None:
        console.print(escape(line), highlight=False, soft_wrap=True)

    seconds = background.start(_arguments(options), options.state_dir, show)
    greet(seconds, in_background=True)


def _arguments(options: Options) -> list[str]:
    """Return the options of the command line that stand for `options`."""
    arguments = ["--in-background", "--port", str(options.port)]
    arguments += ["--state-dir", str(options.state_dir), "--cache-dir", str(options.cache_dir)]
    arguments += ["--model", options.model] if options.model else []
    arguments += ["--context-length", str(options.context_length)] if options.context_length else []
    arguments += [part for text in options.gguf for part in ("--gguf", text)]
    arguments += [part for text in options.mmproj for part in ("--mmproj", text)]
    return [*arguments, *(["--demo-thinking"] if options.demo_thinking else [])]


def _greet(options: Options, console: Console, seconds: float, *, in_background: bool) -> None:
    console.print(_welcome(options, seconds, in_background).render(), highlight=False, soft_wrap=True)


def _print_as_json(options: Options, _: Console, seconds: float, *, in_background: bool) -> None:
    # A reader waits for this line while the stack goes on.
    print_json(_welcome(options, seconds, in_background).facts())
    sys.stdout.flush()


def _welcome(options: Options, seconds: float, in_background: bool) -> Welcome:
    state = read_state(options.state_dir) or {}
    key = (options.state_dir / "api-key").read_text().strip()
    return Welcome(state, key, options.state_dir, seconds, in_background=in_background)
