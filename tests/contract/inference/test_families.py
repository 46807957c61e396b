"""Reasoning, calls and stops of two model families, from tokens that Triton plays back to events."""

from __future__ import annotations

import json
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from grpc_health.v1 import health_pb2
from tokenizers import Tokenizer
from vilix.inference.v1 import inference_service_pb2 as pb

from tests.contract.inference.conftest import CATALOG_ENTRY
from tests.support import models
from tests.support.chat_templates import template_of
from tests.support.triton_servers import serving
from tests.support.workers import running_inference_worker

REASONING = "کاربر می\u200cخواهد بداند؛ STOP نه، 👨‍👩‍👧 …"
ANSWER = "یک، دو 👨‍👩‍👧 سه؛ 👨‍👩‍👧‍👦 wonderful چهار"
ARGUMENTS = {"city": "تهران <b>", "days": 3, "hours": [6, 12.5], "note": "۳", "raw": True}
CALLS = {
    "qwen": (
        '<tool_call>\n{"name": "get_weather", "arguments": '
        f"{json.dumps(ARGUMENTS, ensure_ascii=False)}}}\n</tool_call>\n"
        '<tool_call>\n{"name": "get_time", "arguments": {}}\n</tool_call>'
    ),
    "minimax": (
        '<minimax:tool_call>\n<invoke name="get_weather">\n<parameter name="city">تهران <b></parameter>\n'
        '<parameter name="days">3</parameter>\n<parameter name="hours">[6, 12.5]</parameter>\n'
        '<parameter name="note">۳</parameter>\n<parameter name="raw">true</parameter>\n</invoke>\n'
        '<invoke name="get_time">\n</invoke>\n</minimax:tool_call>'
    ),
}
TYPES = {"city": "string", "days": "integer", "hours": "array", "note": "string", "raw": "boolean"}
TOOLS = [
    pb.Tool(
        name="get_weather",
        parameters_json=json.dumps({"type": "object", "properties": {n: {"type": t} for n, t in TYPES.items()}}),
    ),
    pb.Tool(name="get_time"),
]
PARSERS = {
    "qwen": "parsers: {reasoning: think, tool_calls: hermes}\ncapabilities: {reasoning_optional: true}\n",
    "minimax": "parsers: {reasoning: think, tool_calls: minimax}\n",
}


def entry(model_id: str) -> str:
    return CATALOG_ENTRY.replace("id: replay", f"id: {model_id}").replace("512", "4096") + PARSERS[model_id]


def recordings(model_id: str, path: Path) -> Path:
    tokenizer = Tokenizer.from_file(str(models.qwen3() / "tokenizer.json"))

    def played(name: str, text: str, *, prompt: str = "") -> dict[str, Any]:
        ids = tokenizer.encode(f"{text}<|im_end|>", add_special_tokens=False).ids
        contains = tokenizer.encode(prompt, add_special_tokens=False).ids
        return {"name": name, "prompt_contains": contains, "token_ids": ids, "interval_ms": 1}

    # MiniMax's template has opened the reasoning.
    reasoning = f"{'<think>' if model_id == 'qwen' else ''}\n{REASONING}\n</think>\n\n"
    path.write_text(
        json.dumps(
            [
                played("calls", f"{reasoning}ببینیم.\n{CALLS[model_id]}", prompt="get_weather"),
                played("answer", reasoning + ANSWER),
            ]
        )
    )
    return path


@pytest.fixture(scope="module")
async def families(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Any]:
    """A worker's stub, with both models behind a Triton."""
    qwen = models.qwen3()
    directory = tmp_path_factory.mktemp("families")
    minimax, catalog = directory / "minimax", directory / "catalog"
    shutil.copytree(qwen, minimax)
    (minimax / "chat_template.jinja").write_text(template_of("minimax"))
    catalog.mkdir()
    for model_id in PARSERS:
        (catalog / f"{model_id}.yaml").write_text(entry(model_id))
    engines: dict[str, tuple[str, dict[str, Any]]] = {
        model_id: (
            "replay",
            {"recordings": str(recordings(model_id, directory / f"{model_id}.json")), "context_length": 4096},
        )
        for model_id in PARSERS
    }
    (directory / "triton").mkdir()
    async with serving(directory / "triton", engines) as (server, _):
        settings = {
            "models": f"qwen={qwen},minimax={minimax}",
            "catalog_dir": str(catalog),
            "status_seconds": "0.2",
            "triton": server.target,
        }
        with running_inference_worker(directory, **settings) as worker:
            await worker.reaches(health_pb2.HealthCheckResponse.SERVING, *PARSERS)
            async with worker.connected() as stub:
                yield stub


async def answer(stub: Any, model: str, **fields: Any) -> tuple[str, str, list[tuple[str, Any]], pb.Finish]:
    """Return reasoning, answer, calls with their arguments, and the end."""
    message = pb.Message(role=pb.ROLE_USER, content=[pb.ContentPart(text="سلام")])
    call = stub.Generate(pb.GenerateRequest(model=model, messages=[message], **fields), timeout=60)
    events = [event async for response in call for event in response.events]
    deltas = [event.delta for event in events if event.HasField("delta")]
    fragments = [delta.tool_call for delta in deltas if delta.HasField("tool_call")]
    names = [fragment for fragment in fragments if fragment.name]
    calls = [
        (n.name, json.loads("".join(f.arguments_json for f in fragments if f.index == n.index) or "{}")) for n in names
    ]
    assert events[-1].usage.completion_tokens == sum(delta.token_count for delta in deltas)
    return (
        "".join(delta.reasoning_content for delta in deltas),
        "".join(delta.content for delta in deltas),
        calls,
        next(event.finish for event in events if event.HasField("finish")),
    )


@pytest.mark.parametrize("model", PARSERS)
async def test_reasoning_and_answer_are_split(families: Any, model: str) -> None:
    reasoning, text, calls, finish = await answer(families, model)
    assert (reasoning, text, calls) == (REASONING, ANSWER, [])
    assert finish.reason == pb.FINISH_REASON_STOP


@pytest.mark.parametrize("model", PARSERS)
async def test_arguments_of_calls_have_the_types_of_their_functions(families: Any, model: str) -> None:
    reasoning, text, calls, finish = await answer(families, model, tools=TOOLS)
    assert (reasoning, text) == (REASONING, "ببینیم.")
    assert calls == [("get_weather", ARGUMENTS), ("get_time", {})]
    assert finish.reason == pb.FINISH_REASON_TOOL_CALLS


@pytest.mark.parametrize("model", PARSERS)
async def test_the_only_allowed_call_ends_the_generation(families: Any, model: str) -> None:
    _, _, calls, finish = await answer(families, model, tools=TOOLS, parallel_tool_calls=False)
    assert calls == [("get_weather", ARGUMENTS)]
    assert finish.reason == pb.FINISH_REASON_TOOL_CALLS


@pytest.mark.parametrize("model", PARSERS)
@pytest.mark.parametrize(
    ("stop", "shown"),
    [("دو 👨‍👩‍👧 س", "یک، "), ("👦", "یک، دو 👨‍👩‍👧 سه؛ 👨‍👩‍👧‍"), ("چهار", ANSWER.partition("چهار")[0]), ("یک", "")],
)
async def test_a_stop_string_behind_the_reasoning_ends_the_answer(
    families: Any, model: str, stop: str, shown: str
) -> None:
    sampling = pb.SamplingParams(stop=["never", stop])
    reasoning, text, _, finish = await answer(families, model, sampling=sampling)
    assert (reasoning, text) == (REASONING, shown)
    assert (finish.reason, finish.stop_string) == (pb.FINISH_REASON_STOP, stop)


@pytest.mark.parametrize("model", PARSERS)
async def test_a_stop_token_ends_an_answer_without_text(families: Any, model: str) -> None:
    (word,) = (
        Tokenizer.from_file(str(models.qwen3() / "tokenizer.json")).encode(" wonderful", add_special_tokens=False).ids
    )
    sampling = pb.SamplingParams(stop_token_ids=[word])
    reasoning, text, _, finish = await answer(families, model, sampling=sampling)
    assert (reasoning, text) == (REASONING, ANSWER.partition(" wonderful")[0])
    assert (finish.reason, finish.stop_token_id) == (pb.FINISH_REASON_STOP, word)
