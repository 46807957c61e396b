"""Parts of the tests with malformed input: a system whose model has all features, and the invariants after a test."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, Final

from tests.faults.chat_stream import MODEL, read
from tests.faults.connection import Connection
from tests.faults.everything import Everything, running_everything
from tests.faults.system import CATALOG_ENTRY
from tests.support.fault_table import times
from tests.support.models import smollm2
from tests.support.triton_servers import EMBEDDING_MODEL
from tests.support.waits import until

CASES: Final = times(500, 10_000)
AT_ONCE: Final = 40
MEGABYTES: Final = 32
"""The most by which a process may grow after a warm-up: allocators keep some memory. In 10,000 cases, this shows a leak
of 4 kB per case."""
_TIMEOUTS: Final = {"VILIX_HEADER_SECONDS": "1", "VILIX_BODY_SECONDS": "1", "VILIX_KEEP_ALIVE_SECONDS": "1"}
CAPABLE_CATALOG_ENTRY: Final = f"""\
{CATALOG_ENTRY}\
capabilities: {{reasoning_optional: true}}
parsers: {{reasoning: think, tool_calls: hermes}}
"""
"""The entry of a model that can do everything."""
# Reads all fields of a conversation, as the templates of real models do.
TEMPLATE: Final = """\
{%- for tool in tools or [] %}{{ tool | tojson }}{{ tool.function.parameters.properties | length }}{% endfor %}
{%- for message in messages %}<|im_start|>{{ message.role + '\\n' + message.content }}
{%- if message.reasoning_content %}<think>{{ message.reasoning_content.strip('\\n') }}</think>{% endif %}
{%- for call in message.tool_calls or [] %}<tool_call>{{ call.function.name }}{{ call.function.arguments | tojson }}
{%- for key, value in call.function.arguments.items() %}{{ key }}={{ value }}{% endfor %}</tool_call>{% endfor -%}
<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\\n{% endif %}"""


@contextlib.asynccontextmanager
async def capable_system(directory: Path) -> AsyncIterator[Everything]:
    """Run everything, with a model that reasons and calls functions, and whose template reads all fields."""
    settings = capable_settings(directory)
    async with running_everything(directory, gateway_settings=_TIMEOUTS, worker_settings=settings) as everything:
        yield everything


@contextlib.asynccontextmanager
async def unharmed(everything: Everything) -> AsyncIterator[None]:
    """Check at the end that all processes live, that logs have no traceback, and that a good client is served."""
    yield
    tracebacks = everything.tracebacks()
    assert not tracebacks, "\n".join(f"{name}: {each}" for name, each in tracebacks.items())
    assert everything.dead() == []
    client = everything.system.client()
    response = await read(client, "")
    assert response.done
    assert not response.errors
    embedded = await client.post("/embeddings", json={"model": EMBEDDING_MODEL, "input": "good"})
    assert embedded.status_code == 200
    await client.aclose()
    await until(everything.system.is_idle, what="nothing is in flight")


async def without_growth(everything: Everything, run: Callable[[int], Awaitable[None]]) -> str:
    """Run CASES after a warm-up, and check that no process has grown much. Return the largest growth as text."""
    await run(CASES // 4)
    before = everything.memory()
    await run(CASES)
    grown = {name: (size - before[name]) / 1e6 for name, size in everything.memory().items()}
    assert max(grown.values()) < MEGABYTES, grown
    return f"{max(grown.values()):+.1f} MB at most"


def at_once(one: Callable[[], Awaitable[None]]) -> Callable[[int], Awaitable[None]]:
    """Return a function that runs `one` a number of times, AT_ONCE at the same time."""

    async def run(count: int) -> None:
        left = iter(range(count))

        async def some() -> None:
            for _ in left:
                await one()

        async with asyncio.TaskGroup() as group:
            for _ in range(AT_ONCE):
                group.create_task(some())

    return run


def tally(counts: Counter[Any]) -> str:
    """Format how often each result occurred."""
    return ", ".join(f"{count} × {result}" for result, count in sorted(counts.items(), key=str))


async def exchange(address: str, pieces: list[bytes], *, seconds: float = 30) -> bytes:
    """Send `pieces`, and return all bytes received until the connection is closed or `seconds` have passed."""
    connection = await Connection.open(address)
    response = bytearray()
    try:
        async with asyncio.timeout(seconds):
            for piece in pieces:
                connection.writer.write(piece)
                await connection.writer.drain()
                await asyncio.sleep(0)
            while data := await connection.reader.read(65536):
                response += data
    except (ConnectionError, TimeoutError):
        pass
    finally:
        connection.disconnect()
    return bytes(response)


def capable_settings(directory: Path) -> dict[str, str]:
    """Return settings of a worker whose model reasons and calls functions, and whose template reads all fields."""
    model = model_directory(directory / "capable", TEMPLATE)
    (directory / "capable-catalog").mkdir()
    (directory / "capable-catalog" / f"{MODEL}.yaml").write_text(CAPABLE_CATALOG_ENTRY)
    return {"VILIX_MODELS": f"{MODEL}={model}", "VILIX_CATALOG_DIR": str(directory / "capable-catalog")}


def model_directory(directory: Path, template: str) -> Path:
    """Make a model directory with the tokenizer of the small model and the chat template `template`."""
    source = smollm2()
    directory.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        if (source / name).exists():
            (directory / name).write_bytes((source / name).read_bytes())
    (directory / "chat_template.jinja").write_text(template)
    return directory
