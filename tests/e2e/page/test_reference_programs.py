"""The programs of the reference run as displayed with the stack that serves it: each operation, in each language."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.e2e.page.conftest import SITE, OpenPage
from tests.e2e.page.test_examples import NODE, capabilities
from tests.e2e.stack import RunningStack

SUFFIXES = {"python": "py", "javascript": "mjs", "bash": "sh"}
PROGRAMS = (
    "Object.fromEntries([...document.querySelectorAll('[role=tabpanel][id^=panel-]')]"
    ".map(panel => [panel.id.slice('panel-'.length), panel.querySelector('code').textContent]))"
)
EXAMPLE_ID = "resp_0a1b2c3d4e5f"
EXAMPLE_REQUEST = "req-1f2e3d4c5b6a798012345678"
EXPECTED = {
    "createChatCompletion": "chatcmpl-",
    "tokenize": "tokens",
    "createCompletion": "text_completion",
    "createResponse": "resp_",
    "countInputTokens": "input_tokens",
    "retrieveResponse": "resp_",
    # OpenAI's SDKs return nothing; the effect is checked instead.
    "deleteResponse": "",
    "cancelResponse": "resp_",
    "listInputItems": "data",
    "createEmbedding": "embedding",
    "createMessage": "assistant",
    "countMessageTokens": "input_tokens",
    "listModels": "list",
    "retrieveModel": "context_length",
    "getRequest": "completion_tokens",
    "getUsage": "daily_tokens",
}
"""A part of what the programs of each operation print."""
# One process runs all programs of a language: most of the time would go into loading the SDKs again.
RUN_PYTHON = "import runpy, sys\nfor name in sys.argv[1:]:\n    print('##', name)\n    runpy.run_path(name)\n"
RUN_JAVASCRIPT = (
    "for (const name of process.argv.slice(1)) { console.log('##', name); await import(process.cwd() + '/' + name); }"
)
RUN_BASH = 'for name in "$@"; do echo "## $name"; bash "$name" || exit 1; echo; done'


def outputs(command: list[str | Path], names: list[str], directory: Path, api_key: str) -> dict[str, str]:
    """Run programs in one process, and return what each prints."""
    done = subprocess.run(
        [*command, *names],
        cwd=directory,
        env={**os.environ, "VILIX_API_KEY": api_key},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    parts = [part.partition("\n") for part in f"\n{done.stdout}".split("\n## ")[1:]]
    return {name: text for name, _, text in parts}


def names_in(directory: Path, suffix: str) -> list[str]:
    return sorted(file.name for file in directory.glob(f"*.{suffix}"))


async def stored_response(client: httpx.AsyncClient, *, background: bool = False) -> str:
    """Generate a response that the programs read, cancel or delete, and return its id."""
    body = {"model": "replay-thinking", "input": "Hello", "max_output_tokens": 8, "background": background}
    response = await client.post("/responses", json=body)
    assert response.status_code == 200, response.text
    return str(response.json()["id"])


@pytest.mark.timeout(240)
async def test_every_program_of_the_reference_runs_as_displayed(
    reasoning_stack: RunningStack, site: str, open_page: OpenPage, tmp_path: Path
) -> None:
    page = await open_page(site + "/api/docs.en")
    await page.wait_for_selector("html[data-filled]", state="attached")
    programs: dict[str, str] = await page.evaluate(PROGRAMS)
    assert set(programs) == {f"{operation}-{language}" for operation in EXPECTED for language in SUFFIXES}
    if "embeddings" not in await capabilities(site):
        programs = {name: text for name, text in programs.items() if not name.startswith("createEmbedding-")}
    (tmp_path / "node_modules").symlink_to(SITE / "node_modules")
    deleted: list[str] = []
    headers = {"authorization": f"Bearer {reasoning_stack.api_key}"}
    async with httpx.AsyncClient(base_url=reasoning_stack.url, headers=headers, timeout=60) as client:
        tokenized = await client.post("/tokenize", json={"model": "replay-thinking", "prompt": "Hello"})
        request_id = tokenized.headers["x-request-id"]
        for name, text in programs.items():
            operation, _, language = name.partition("-")
            response = EXAMPLE_ID
            if EXAMPLE_ID in text:
                response = await stored_response(client, background=operation == "cancelResponse")
            if operation == "deleteResponse":
                deleted.append(response)
            program = text.replace(EXAMPLE_ID, response).replace(EXAMPLE_REQUEST, request_id)
            (tmp_path / f"{operation}.{SUFFIXES[language]}").write_text(program)
        commands: list[tuple[str, list[str | Path]]] = [
            ("py", [sys.executable, "-P", "-c", RUN_PYTHON]),
            ("mjs", [NODE, "--input-type=module", "-e", RUN_JAVASCRIPT]),
            ("sh", ["bash", "-c", RUN_BASH, "bash"]),
        ]
        done = await asyncio.gather(
            *(
                asyncio.to_thread(outputs, command, names_in(tmp_path, suffix), tmp_path, reasoning_stack.api_key)
                for suffix, command in commands
            )
        )
        printed = {name: text for part in done for name, text in part.items()}
        assert len(printed) == len(programs)
        for name, text in printed.items():
            assert EXPECTED[name.partition(".")[0]] in text, f"{name} printed {text[:1000]}"
            assert "invalid_request_error" not in text, f"{name} printed {text[:1000]}"
        assert len(deleted) == len(SUFFIXES)
        for response in deleted:
            assert (await client.get(f"/responses/{response}")).status_code == 404
