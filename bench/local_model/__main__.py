"""Compare the local model through the whole system with its engine alone: `python -m bench.local_model`.

Both use the same library, threads and prompts, eight at a time, in turns. The program starts the processes that it
needs, prints a table of tokens per second, and stops them.

Examples:
  python -m bench.local_model
  python -m bench.local_model --rounds 3 --json
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import grpc
import httpx
from rich.console import Console
from vilix.inference.v1 import inference_service_pb2 as pb
from vilix.inference.v1 import inference_service_pb2_grpc

from bench.ratios import summary, table
from services.inference.model.catalog import load_model
from services.stack.cores import engine_threads
from services.stack.display import Display
from services.stack.local import Options, Stack, running
from services.stack.local_models import SMALL_MODEL, small_model
from services.stack.ports import free_ports

ROOT = Path(__file__).parents[2]
AT_ONCE, MAX_TOKENS, TEMPERATURE = 8, 96, 0.7


def prompts(round_number: int) -> list[str]:
    """Return different prompts for each round, because engines cache prompts."""
    things = ("a river", "the moon", "a bicycle", "bread", "a library", "rain", "a bridge", "music")
    return [f"Tell me about {thing}, in {round_number + 3} sentences." for thing in things]


async def token_ids(target: str, prompt: str) -> list[int]:
    """Render a prompt as the worker does."""
    async with grpc.aio.insecure_channel(target) as channel:
        message = pb.Message(role=pb.ROLE_USER, content=[pb.ContentPart(text=prompt)])
        request = pb.RenderPromptRequest(request=pb.GenerateRequest(model=SMALL_MODEL, messages=[message]))
        rendered = await inference_service_pb2_grpc.InferenceServiceStub(channel).RenderPrompt(request)
        return list(rendered.token_ids)


async def through_the_system(client: httpx.AsyncClient, questions: list[str]) -> float:
    """Measure the tokens per second of streamed responses."""

    async def ask(prompt: str) -> int:
        body = {
            "model": SMALL_MODEL,
            "messages": [{"role": "user", "content": prompt}],
            "max_tokens": MAX_TOKENS,
            "ignore_eos": True,
            "temperature": TEMPERATURE,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        response = await client.post("/chat/completions", json=body)
        last = response.text.splitlines()[-4]
        return int(json.loads(last.removeprefix("data: "))["usage"]["completion_tokens"])

    began = time.perf_counter()
    counts = await asyncio.gather(*(ask(prompt) for prompt in questions))
    return sum(counts) / (time.perf_counter() - began)


async def alone(bare: asyncio.subprocess.Process, ids: list[list[int]]) -> float:
    """Measure the tokens per second of the engine's loop."""
    assert bare.stdin is not None and bare.stdout is not None  # noqa: S101, PT018  # they are pipes
    questions = {"prompts": ids, "max_tokens": MAX_TOKENS, "sampling": {"temperature": TEMPERATURE}}
    bare.stdin.write(json.dumps(questions).encode() + b"\n")
    result = json.loads(await bare.stdout.readline())
    return float(result["tokens"] / max(result["last"]))


async def measure(rounds: int) -> dict[str, Any]:
    """Run all measurements and return them by name."""
    model = small_model(ROOT / ".cache").directory / "model.gguf"
    arguments = {**load_model(SMALL_MODEL).choose_engine().arguments, "model": str(model), "threads": engine_threads()}
    bare = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "bench.local_model.bare",
        json.dumps(arguments),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        with tempfile.TemporaryDirectory(prefix="vilix-bench-") as directory:
            options = Options(
                port=free_ports(1)[0], state_dir=Path(directory), cache_dir=ROOT / ".cache", model=SMALL_MODEL
            )
            async with running(options, Display(Console(stderr=True))) as stack:
                return await _measure(stack, bare, rounds)
    finally:
        bare.terminate()
        await bare.wait()


async def _measure(stack: Stack, bare: asyncio.subprocess.Process, rounds: int) -> dict[str, Any]:
    results: dict[str, list[float]] = {"system": [], "alone": []}
    headers = {"Authorization": f"Bearer {stack.api_key}"}
    async with httpx.AsyncClient(base_url=stack.url, headers=headers, timeout=300) as client:
        for number in range(-1, rounds):
            questions = prompts(number)
            ids = [await token_ids(stack.inference_target, prompt) for prompt in questions]
            rates = {"system": await through_the_system(client, questions), "alone": await alone(bare, ids)}
            # The first round is slower, and not measured.
            for name, rate in rates.items() if number >= 0 else ():
                results[name].append(rate)
    ratios = [system / own for system, own in zip(results["system"], results["alone"], strict=True)]
    return {**results, "ratio": ratios}


def report(results: dict[str, Any]) -> str:
    """Format the results as a table of medians and ranges over the rounds."""
    rows = [
        [
            f"Tokens per second, {AT_ONCE} at once",
            summary(results["system"], digits=0),
            summary(results["alone"], digits=0),
        ],
        ["Ratio", f"**{summary(results['ratio'])}**", "1"],
    ]
    return table(["", "the whole system", "the engine alone"], rows)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7, help="how often each is measured")
    parser.add_argument("--json", action="store_true", help="print all rounds as JSON")
    options = parser.parse_args()
    results = asyncio.run(measure(options.rounds))
    print(json.dumps(results, indent=2) if options.json else report(results))


if __name__ == "__main__":
    main()
