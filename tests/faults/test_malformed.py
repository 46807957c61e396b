"""Generated malformed input over HTTP causes no status 5xx, no traceback and no growth of memory."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from random import Random
from typing import Any, Final
from urllib.parse import quote

import httpx
import orjson
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from schemathesis import GenerationMode

from tests.faults.chat_stream import MODEL, body
from tests.faults.everything import ADMIN_TOKEN, Everything
from tests.faults.malformed import at_once, capable_system, exchange, tally, unharmed, without_growth
from tests.faults.mutation import each_hostile_value, mutated, with_hostile_value
from tests.support.fault_table import record, times
from tests.support.triton_servers import EMBEDDING_MODEL
from tests.support.waits import until

pytestmark = pytest.mark.timeout(times(300, 1800))

_STATUS: Final = re.compile(rb"HTTP/1\.[01] (\d{3}) ")
VICTIM: Final = "victim"
ALIAS: Final = "an-alias"
BUSY_SECONDS: Final = 60
ODD_VALUES: Final = int(os.environ.get("VILIX_ODD_VALUES", times(1_500, 10_000)))
"""The number of combinations of a field and a value that are sent; VILIX_ODD_VALUES changes it."""
TOOL: Final[dict[str, Any]] = {
    "type": "function",
    "function": {
        "name": "f",
        "description": "d",
        "parameters": {"type": "object", "properties": {"a": {"type": "string", "enum": ["x"]}}},
        "strict": True,
    },
}
CHAT: Final[dict[str, Any]] = {
    "model": MODEL,
    "messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "سلام"}], "name": "u"},
        {
            "role": "assistant",
            "content": None,
            "reasoning_content": "thought",
            "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"a": [1, {}]}'}}],
        },
        {"role": "tool", "tool_call_id": "c", "content": "result"},
    ],
    "tools": [TOOL],
    "tool_choice": "auto",
    "stream": True,
    "stream_options": {"include_usage": True},
    "max_tokens": 20,
    "stop": ["x"],
    "n": 2,
    "seed": 1,
    "chat_template_kwargs": {"enable_thinking": False},
    "metadata": {"a": "b"},
    "response_format": {"type": "text"},
}
SAMPLING: Final[dict[str, Any]] = {
    "temperature": 0.5,
    "top_p": 0.9,
    "top_k": 5,
    "min_p": 0.1,
    "frequency_penalty": 0.1,
    "presence_penalty": 0.1,
    "repetition_penalty": 1.1,
    "seed": 1,
    "min_tokens": 1,
    "max_completion_tokens": 5,
    "logit_bias": {"5": 1.5},
    "logprobs": True,
    "top_logprobs": 2,
    "stop": ["x", "y"],
    "stop_token_ids": [1],
    "ignore_eos": False,
    "skip_special_tokens": True,
    "reasoning_effort": "low",
    "include_reasoning": True,
    "priority": 1,
    "user": "u",
}
EMBED: Final[dict[str, Any]] = {
    "model": EMBEDDING_MODEL,
    "input": ["one", "دو"],
    "encoding_format": "float",
    "input_type": "query",
    "dimensions": 384,
}
BODIES: Final[tuple[tuple[str, dict[str, Any]], ...]] = (
    ("/api/chat/completions", CHAT),
    ("/api/chat/completions", body(stream=False)),
    ("/v1/chat/completions", {**body(), "logit_bias": {"5": 1}, "logprobs": False, "stop_token_ids": [1]}),
    (
        "/api/chat/completions",
        {**body(), "response_format": {"type": "json_schema", "json_schema": {"name": "s", "schema": {}}}},
    ),
    ("/api/chat/completions", {**body(), "guided_regex": "a+", "structured_outputs": {"choice": ["a"]}}),
    ("/api/chat/completions", {**body(stream=False), **SAMPLING}),
    ("/api/completions", {"model": MODEL, "prompt": "سلام", "max_tokens": 5, **SAMPLING, "logprobs": 1, "echo": False}),
    ("/api/completions", {"model": MODEL, "prompt": [1, 2, 3], "max_tokens": 5, "stream": True, "suffix": None}),
    ("/api/tokenize", {"model": MODEL, "prompt": "سلام", "add_special_tokens": True}),
    (
        "/api/tokenize",
        {
            "model": MODEL,
            "messages": CHAT["messages"],
            "tools": [TOOL],
            "chat_template_kwargs": CHAT["chat_template_kwargs"],
        },
    ),
    ("/api/embeddings", EMBED),
    ("/api/embeddings", {**EMBED, "input": [[1, 2], [3]], "encoding_format": "base64"}),
)


@pytest.fixture(scope="module")
async def everything(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Everything]:
    async with capable_system(tmp_path_factory.mktemp("malformed")) as running:
        yield running


@pytest.fixture(autouse=True)
async def no_harm(everything: Everything) -> AsyncIterator[None]:
    async with unharmed(everything):
        yield
        await delete_aliases(everything)


async def test_requests_generated_from_the_openapi_documents_cause_no_5xx(everything: Everything) -> None:
    system, admin = everything.system, f"http://{everything.admin_address}"
    async with httpx.AsyncClient(headers={"Authorization": f"Bearer {ADMIN_TOKEN}"}) as client:
        public_document = (await client.get(f"{system.url}/api/openapi.json")).json()
        admin_document = (await client.get(f"{admin}/admin/v1/openapi.json")).json()
        assert (await client.post(f"{admin}/admin/v1/keys", json={"name": VICTIM})).status_code == 201
    seen: Counter[int] = Counter()
    runs = iter(range(10))

    async def run(count: int) -> None:
        number = next(runs)
        for url, document, credential in (
            (f"{system.url}/api", public_document, system.api_key),
            (admin, admin_document, ADMIN_TOKEN),
        ):
            await asyncio.to_thread(ask_generated, url, document, credential, seen, count=count // 2, number=number)

    grown = await without_growth(everything, run)
    assert {200, 400, 404} <= set(seen)
    record(
        "Malformed input: schemathesis over both OpenAPI documents",
        "0 responses with status 5xx",
        f"{tally(seen)}; {grown}",
        met=True,
    )


def ask_generated(
    url: str, document: dict[str, Any], credential: str, seen: Counter[int], *, count: int, number: int
) -> None:
    """Send requests that match the document, and others that do not. Each `number` generates different ones."""
    operations = [operation.ok() for operation in schemathesis.openapi.from_dict(document).get_all_operations()]
    modes = (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)

    def ask(case: Any) -> None:
        _aim(case)
        response = case.call(base_url=url, headers={"Authorization": f"Bearer {credential}"}, timeout=60)
        seen[response.status_code] += 1
        assert response.status_code < 500, f"{response.status_code} {response.text}: {case.as_curl_command()[:5000]}"
        if response.status_code >= 400:
            error = response.json()["error"]
            if "/messages" in case.operation.path:
                assert {"message", "type"} <= error.keys() <= {"message", "type", "details"}
            else:
                assert error.keys() == {"message", "type", "param", "code"}

    for operation in operations:
        for mode in modes:
            limited = settings(
                max_examples=max(1, count // (len(modes) * len(operations))),
                phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
                database=None,
            )
            limited(seed(number)(given(case=operation.as_strategy(mode))(ask)))()


def _aim(case: Any) -> None:
    """Set existing names in most cases, because most generated ones would be rejected as unknown."""
    random = Random(str(case.body) + str(case.path_parameters))
    known = {"/chat/completions": MODEL, "/embeddings": EMBEDDING_MODEL}.get(case.operation.path)
    if known and isinstance(case.body, dict) and random.random() < 0.8:
        case.body["model"] = known
    for name in case.path_parameters or ():
        if random.random() < 0.8:
            case.path_parameters[name] = {"name_or_id": VICTIM, "alias": ALIAS}.get(name, MODEL)


async def delete_aliases(everything: Everything) -> None:
    """Delete the aliases that requests have created, one of which may hide the model of the tests."""
    url, header = f"http://{everything.admin_address}/admin/v1/aliases", {"Authorization": f"Bearer {ADMIN_TOKEN}"}
    async with httpx.AsyncClient(headers=header) as admin, everything.system.client() as client:
        for alias in (await admin.get(url)).json():
            assert (await admin.delete(f"{url}/{quote(alias, safe='')}")).status_code == 200

        async def are_gone() -> bool:
            listed = (await client.get("/models")).json()["data"]
            return MODEL in {model["id"] for model in listed} and not any(model.get("alias_of") for model in listed)

        await until(are_gone, what="no alias is left")


@pytest.mark.parametrize("api", ["public", "admin"])
async def test_schemathesis_finds_nothing_in_any_of_its_phases(
    everything: Everything, tmp_path: Path, api: str
) -> None:
    if api == "public":
        # The cases of this phase that do not match the document are thousands.
        (tmp_path / "schemathesis.toml").write_text('[phases.coverage.generation]\nmode = "positive"\n')
        url, credential = f"{everything.system.url}/api", everything.system.api_key
        document = f"{url}/openapi.json"
    else:
        url, credential = f"http://{everything.admin_address}", ADMIN_TOKEN
        document = f"{url}/admin/v1/openapi.json"
    output = await find_with_schemathesis(document, url, credential, tmp_path)
    record(
        f"Malformed input: schemathesis in all phases, {api} API",
        "no findings",
        " ".join(re.findall(r"[\d,]+ generated.*", output)),
        met=True,
    )


REPLACED_CHECKS: Final = (
    "positive_data_acceptance",
    "negative_data_rejection",
    "response_schema_conformance",
    "use_after_free",
)


async def find_with_schemathesis(document: str, url: str, credential: str, directory: Path) -> str:
    """Return the output of the command, and fail if it finds anything.

    Its checks of accepted and rejected requests are those of `document_hooks`.
    """
    command = [
        *(Path(sys.executable).with_name("schemathesis"), "run", document, "--url", url),
        *("--header", f"Authorization: Bearer {credential}"),
        *("--phases", "examples,coverage,fuzzing,stateful", "--max-examples", "3", "--seed", "1"),
        *("--checks", "all", "--exclude-checks", ",".join(REPLACED_CHECKS)),
        *("--suppress-health-check", "all", "--generation-database", "none", "--request-timeout", "60"),
        *("--max-response-time", "60", "--generation-with-security-parameters", "false"),
        *("--max-failures", "20", "--no-shrink", "--no-color", "--warnings", "off"),
    ]
    environment = {**os.environ, "SCHEMATHESIS_HOOKS": "tests.faults.document_hooks"}
    environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    process = await asyncio.create_subprocess_exec(
        *map(str, command),
        cwd=directory,
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        output = (await process.communicate())[0].decode(errors="replace")
    finally:
        if process.returncode is None:
            process.kill()
    assert process.returncode == 0, output[-20_000:]
    return output


async def test_http_requests_with_mutated_bytes_cause_no_5xx(everything: Everything) -> None:
    random = Random(1)
    valid = [request(everything, path, orjson.dumps(content)) for path, content in BODIES]
    valid += [request(everything, path) for path in ("/api/models", "/", "/healthz", "/site/models.json", "/api/usage")]

    def case() -> list[bytes]:
        """Generate pieces that are sent one after the other."""
        match random.randrange(4):
            case 0:
                path, content = random.choice(BODIES)
                whole = request(everything, path, with_hostile_value(random, content))
            case 1:
                # Several requests on one connection, one of which is malformed.
                several = [each.replace(b"Connection: close\r\n", b"") for each in random.choices(valid, k=2)]
                several.insert(random.randrange(3), mutated(random, random.choice(several), valid))
                whole = b"".join(several)
            case 2:
                path, content = random.choice(BODIES)
                whole = request(everything, path, mutated(random, orjson.dumps(content)))
            case _:
                whole = mutated(random, random.choice(valid), valid)
        cut = random.randrange(len(whole) + 1)
        return [whole] if random.random() < 0.5 else [whole[:cut], whole[cut:]]

    seen: Counter[int] = Counter()

    async def one() -> None:
        pieces = case()
        response = await exchange(everything.system.gateway.address, pieces)
        statuses = [int(status) for status in _STATUS.findall(response)]
        seen.update(statuses)
        if max(statuses, default=0) >= 500 or b'"server_error"' in response:
            pytest.fail(f"{pieces!r:.10000}\n{response!r:.2000}")

    grown = await without_growth(everything, at_once(one))
    assert len(seen) > 3
    record(
        "Malformed input: HTTP requests with mutated bytes",
        "0 responses with status 5xx",
        f"{tally(seen)}; {grown}",
        met=True,
    )


_NEVER_VALID: Final = (
    {**body(), "guided_regex": "a+", "structured_outputs": {"choice": ["a"]}},
    {**EMBED, "input": [[1, 2], [3]], "encoding_format": "base64"},
)
"""Bodies with a conflict or for another model, which are rejected before other values are checked."""
VALID: Final = (
    *(case for case in BODIES if case[1] not in _NEVER_VALID),
    ("/api/chat/completions", {**body(stream=False), "guided_regex": "a+"}),
    ("/api/chat/completions", {**body(stream=False), "structured_outputs": {"choice": ["a"]}}),
    ("/api/embeddings", {**EMBED, "encoding_format": "base64"}),
)
ADMIN: Final[tuple[tuple[str, str, dict[str, Any]], ...]] = (
    (
        "POST",
        "/keys",
        {
            "name": "odd",
            "owner": "o",
            "expires": 4_000_000_000,
            "tier": "t",
            "models": [MODEL],
            "limits": {"rpm": 5, "tpm": 100, "concurrency": 2, "daily_tokens": 10},
            "model_limits": {MODEL: {"rpm": 5}},
        },
    ),
    ("PATCH", f"/keys/{VICTIM}", {"owner": "o", "limits": {"rpm": 5}, "model_limits": {MODEL: {"tpm": 5}}}),
    ("POST", f"/keys/{VICTIM}/rotate", {"grace_seconds": 5}),
)


async def test_an_odd_value_in_any_field_causes_no_server_error(everything: Everything) -> None:
    random = Random(2)
    api, admin = everything.system.url, f"http://{everything.admin_address}/admin/v1"
    cases = [("POST", api + path, everything.system.api_key, body) for path, body in VALID]
    cases += [(method, admin + path, ADMIN_TOKEN, body) for method, path, body in ADMIN]
    requests = [(method, url, key, content) for method, url, key, body in cases for content in each_hostile_value(body)]
    random.shuffle(requests)
    left = iter(requests[:ODD_VALUES])
    seen: Counter[int] = Counter()
    # Each request uses a new connection: the gateway closes idle ones after a second, perhaps at their next use.
    limits = httpx.Limits(max_keepalive_connections=0)
    async with httpx.AsyncClient(timeout=60, limits=limits) as client:
        bearer = {"Authorization": f"Bearer {ADMIN_TOKEN}"}
        await client.post(f"{admin}/keys", json={"name": VICTIM}, headers=bearer)
        rejected = []
        for method, url, key, body in cases:
            whole = await client.request(method, url, json=body, headers={"Authorization": f"Bearer {key}"})
            if not whole.is_success:
                rejected.append(f"{url} {whole.text}")
        assert not rejected, "these bodies are not valid before the mutation: " + "; ".join(rejected)

        async def some() -> None:
            for method, url, key, content in left:
                headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
                response = await client.request(method, url, content=content, headers=headers)
                async with asyncio.timeout(BUSY_SECONDS):
                    # On a busy machine, a model may be overloaded, whatever the value is.
                    while response.status_code == 503:
                        await asyncio.sleep(0.5)
                        response = await client.request(method, url, content=content, headers=headers)
                seen[response.status_code] += 1
                is_server_error = response.status_code >= 500 or '"server_error"' in response.text
                assert not is_server_error, (
                    f"{method} {url} {content!r:.5000}: {response.status_code} {response.text:.1000}"
                )

        async with asyncio.TaskGroup() as group:
            for _ in range(8):
                group.create_task(some())
    await everything.wait_until_ready()
    assert {200, 400} <= set(seen)
    record(
        "Malformed input: an odd value in each field of chat, completions, tokenize, embeddings and the admin API",
        "0 responses with status 5xx",
        f"{tally(seen)}, of {len(requests)} cases",
        met=True,
    )


def request(everything: Everything, path: str, content: bytes | None = None) -> bytes:
    """Return a valid request that closes its connection."""
    head = f"{'GET' if content is None else 'POST'} {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n"
    head += f"Authorization: Bearer {everything.system.api_key}\r\nX-Request-Id: fuzz\r\n"
    if content is not None:
        head += f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n"
    return head.encode() + b"\r\n" + (content or b"")
