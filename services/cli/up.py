"""`vilix up`: run the whole system on this machine."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from services.stack.display import Display
from services.stack.local import Options, Stack, running
from services.stack.local_models import EMBEDDING_MODEL, SMALL_MODEL
from services.stack.supervisor import StackError


def up(
    *,
    port: Annotated[int, typer.Option(min=1, max=65535, help="The gateway's port on 127.0.0.1.")] = 8000,
    state_dir: Annotated[Path, typer.Option(help="The directory for the key, the logs and the data.")] = Path(".run"),
    cache_dir: Annotated[Path, typer.Option(help="The directory for prepared models.")] = Path(".cache"),
    gguf: Annotated[
        list[str] | None,
        typer.Option(metavar="ID=PATH", help="Serve your own GGUF file under an id of the catalog. Repeatable."),
    ] = None,
    mmproj: Annotated[
        list[str] | None,
        typer.Option(metavar="ID=PATH", help="The vision projector (GGUF) of a model of --gguf. Repeatable."),
    ] = None,
    demo_thinking: Annotated[  # a flag of the command line
        bool,
        typer.Option(
            "--demo-thinking", help="Also serve replay-thinking: recorded responses with reasoning and tool calls."
        ),
    ] = False,
) -> None:
    """Start Valkey, Triton with small models, the workers and the gateway on 127.0.0.1.

    The stack runs until Ctrl-C or SIGTERM, which stops everything in order; a second one kills everything at once.

    Examples:
      vilix up
      vilix up --port 8001 --state-dir .run2
      vilix up --gguf qwen3-8b=Qwen3-8B-Q4_K_M.gguf
      vilix up --gguf qwen3-vl=Qwen3VL-8B-Q4_K_M.gguf --mmproj qwen3-vl=mmproj-Qwen3VL-8B-F16.gguf
      vilix up --demo-thinking
    """
    try:
        options = Options(port, state_dir, cache_dir, tuple(gguf or ()), tuple(mmproj or ()), demo_thinking)
        asyncio.run(_up(options, Console()))
    except StackError as error:
        print(f"error: {error}", file=sys.stderr)
        raise typer.Exit(1) from None


async def _up(options: Options, console: Console) -> None:
    began = time.monotonic()
    stop = asyncio.Event()
    stack: Stack | None = None

    def on_signal() -> None:
        if stop.is_set():
            if stack is not None:
                stack.supervisor.kill()
            os._exit(130)
        stop.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, on_signal)

    async def run() -> None:
        nonlocal stack
        async with running(options, Display(console)) as stack:
            console.print(_welcome(stack, options, time.monotonic() - began), highlight=False, soft_wrap=True)
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


def _welcome(stack: Stack, options: Options, seconds: float) -> str:
    key_file = options.state_dir / "api-key"
    return f"""
[bold]Vilix is ready[/] ({seconds:.1f} s)

  URL  [bold]{stack.url}[/]
  Key  [bold]{stack.api_key}[/]  (also in {key_file})
  gRPC {stack.inference_target}  (chat) and {stack.embeddings_target}  (embeddings), for internal services

Try it:

  curl -N {stack.url}/chat/completions \\
    -H "Authorization: Bearer $(cat {key_file})" -H "Content-Type: application/json" \\
    -d '{{"model": "{SMALL_MODEL}", "stream": true,
         "messages": \\[{{"role": "user", "content": "Why is the sky blue?"}}]}}'

{SMALL_MODEL} is a small real model that runs without a GPU. It writes simple English, but no Persian.{_others(stack)}
{EMBEDDING_MODEL} makes the embeddings ({stack.url}/embeddings), also of Persian texts.
The logs are in {options.state_dir / "logs"}. Ctrl-C stops everything.
"""


def _others(stack: Stack) -> str:
    others = [model for model in stack.models if model != SMALL_MODEL]
    return f"\nAlso served: {', '.join(others)}." if others else ""
