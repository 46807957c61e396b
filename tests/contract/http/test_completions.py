"""POST /completions, OpenAI's legacy API for text, parsed by OpenAI's SDK."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import openai
import pytest
from vilix.inference.v1 import inference_service_pb2 as pb

from tests.support.scripted_worker import MODEL, ScriptedWorker, content, finish, started, usage

URL = "/api/completions"


@pytest.fixture
async def sdk(http: httpx.AsyncClient) -> AsyncIterator[openai.AsyncOpenAI]:
    """Yield a client that validates every response. `http` waits until the gateway has found the worker."""
    api_key = http.headers["authorization"].removeprefix("Bearer ")
    async with openai.AsyncOpenAI(
        base_url=f"{http.base_url}/api", api_key=api_key, max_retries=0, _strict_response_validation=True
    ) as client:
        yield client


@pytest.fixture
def lenient(sdk: openai.AsyncOpenAI) -> openai.AsyncOpenAI:
    """Return a client for streams: the SDK's types require a finish reason in every chunk; OpenAI sends only one."""
    return sdk.with_options(_extra_kwargs={"_strict_response_validation": False})


def token(text: str, logprob: float, *top: tuple[str, float]) -> pb.Event:
    entry = pb.TokenLogprob(
        token=text,
        token_bytes=text.encode(),
        logprob=logprob,
        top=[pb.TopLogprob(token=other, logprob=value) for other, value in top],
    )
    return pb.Event(delta=pb.Delta(content=text, token_count=1, logprobs=[entry]))


async def test_a_prompt_is_sent_to_the_worker_without_a_template(
    sdk: openai.AsyncOpenAI, worker: ScriptedWorker
) -> None:
    worker.script = [[started(), content(" سلام")], [content("\u200cها")], [finish(pb.FINISH_REASON_LENGTH), usage()]]
    found = await sdk.completions.create(model=MODEL, prompt="گفت:", stop=["\n"], temperature=0.5)
    assert (found.object, found.id[:5], found.choices[0].text) == ("text_completion", "cmpl-", " سلام\u200cها")
    assert found.choices[0].finish_reason == "length"
    assert found.usage is not None
    assert found.usage.total_tokens == 5
    asked = worker.requests[-1]
    assert (asked.prompt, asked.sampling.max_tokens, list(asked.sampling.stop)) == ("گفت:", 16, ["\n"])
    assert not asked.messages
    assert asked.reasoning.in_content, "reasoning is a part of the text"


async def test_a_stream_of_two_choices_begins_each_with_the_prompt(
    lenient: openai.AsyncOpenAI, worker: ScriptedWorker
) -> None:
    worker.script = [
        [started(), content("a", 0), content("b", 1)],
        [content("c", 0), finish(index=0), finish(pb.FINISH_REASON_LENGTH, 1), usage(3)],
    ]
    chunks = [
        chunk
        async for chunk in await lenient.completions.create(
            model=MODEL, prompt=["One "], n=2, echo=True, stream=True, stream_options={"include_usage": True}
        )
    ]
    texts, reasons = ["", ""], ["", ""]
    for chunk in chunks:
        for choice in chunk.choices:
            texts[choice.index] += choice.text
            reasons[choice.index] = choice.finish_reason or reasons[choice.index]
    assert (texts, reasons) == (["One ac", "One b"], ["stop", "length"])
    assert [chunk.usage.completion_tokens for chunk in chunks if chunk.usage] == [3]
    assert len({chunk.id for chunk in chunks}) == 1


@pytest.mark.parametrize("stream", [False, True])
async def test_logprobs_have_the_offset_of_each_token(
    sdk: openai.AsyncOpenAI, lenient: openai.AsyncOpenAI, worker: ScriptedWorker, *, stream: bool
) -> None:
    worker.script = [
        [started(), token("ab", -0.5, ("ab", -0.5), ("x", -1.5))],
        [token("c", -0.25), finish(), usage()],
    ]
    asked: Any = await (lenient if stream else sdk).completions.create(
        model=MODEL, prompt="z", logprobs=2, stream=stream
    )
    parts = [chunk async for chunk in asked] if stream else [asked]
    found = [choice.logprobs for part in parts for choice in part.choices if choice.logprobs]
    assert [text for each in found for text in each.tokens] == ["ab", "c"]
    assert [value for each in found for value in each.token_logprobs] == [-0.5, -0.25]
    assert [top for each in found for top in each.top_logprobs] == [{"ab": -0.5, "x": -1.5}, {}]
    assert [offset for each in found for offset in each.text_offset] == [0, 2]
    assert worker.requests[-1].logprobs.top == 2


async def test_a_prompt_may_be_token_ids(http: httpx.AsyncClient, worker: ScriptedWorker) -> None:
    worker.script = [[started()], [finish(), usage()]]
    for prompt in ([5, 6, 7], [[5, 6, 7]]):
        response = await http.post(URL, json={"model": MODEL, "prompt": prompt})
        assert response.status_code == 200
        assert list(worker.requests[-1].prompt_token_ids) == [5, 6, 7]


@pytest.mark.parametrize(
    ("fields", "param", "message_id"),
    [
        ({}, "prompt", "field_missing"),
        ({"prompt": ""}, "prompt", "text_empty"),
        ({"prompt": ["a", "b"], "dry_run": True}, "prompt", "several_prompts_in_one_field"),
        ({"prompt": ["a", ""]}, "prompt[1]", "text_empty"),
        ({"prompt": [[1], []]}, "prompt[1]", "list_empty"),
        ({"prompt": [[1], 2]}, "prompt[1]", "wrong_type"),
        ({"prompt": 5}, "prompt", "wrong_type"),
        ({"prompt": [1, -1]}, "prompt[1]", "out_of_range"),
        ({"prompt": "a", "best_of": 3, "stream": True}, "best_of", "best_of_in_stream"),
        ({"prompt": "a", "logprobs": 21}, "logprobs", "out_of_range"),
        ({"prompt": [1], "echo": True}, "echo", "echo_of_token_ids"),
        ({"prompt": [1, "a"]}, "prompt[1]", "wrong_type"),
    ],
)
async def test_unsupported_values_are_rejected(
    http: httpx.AsyncClient, worker: ScriptedWorker, fields: dict[str, Any], param: str, message_id: str
) -> None:
    response = await http.post(URL, json={"model": MODEL, **fields})
    error = response.json()["error"]
    assert (response.status_code, error["param"]) == (400, param)
    assert response.headers["x-error-message-id"] == message_id
    assert not worker.requests


async def test_a_best_of_below_n_is_reported(http: httpx.AsyncClient, worker: ScriptedWorker) -> None:
    worker.script = [[started()], [*(finish(index=index) for index in range(3)), usage()]]
    response = await http.post(URL, json={"model": MODEL, "prompt": "a", "best_of": 2, "n": 3})
    assert (response.status_code, response.headers["x-ignored-params"]) == (200, "best_of")
    assert (len(response.json()["choices"]), worker.requests[-1].n) == (3, 3)


async def test_unknown_fields_are_reported(http: httpx.AsyncClient, worker: ScriptedWorker) -> None:
    worker.script = [[started()], [finish(), usage()]]
    response = await http.post(
        URL, json={"model": MODEL, "prompt": "a", "user": "u", "messages": [1], "tools": 1, "zeta": []}
    )
    assert response.headers["x-ignored-params"] == "messages,tools"


async def test_several_prompts_have_n_choices_each_in_their_order(
    sdk: openai.AsyncOpenAI, worker: ScriptedWorker
) -> None:
    texts = ["a", "b", "c", "d"]
    worker.script = [
        [started(), *(content(text, index) for index, text in enumerate(texts))],
        [*(finish(index=index) for index in range(4)), usage(4)],
    ]
    found = await sdk.completions.create(model=MODEL, prompt=["One ", "Two "], n=2, echo=True)
    assert [(choice.index, choice.text) for choice in found.choices] == [
        (0, "One a"),
        (1, "One b"),
        (2, "Two c"),
        (3, "Two d"),
    ]
    asked = worker.requests[-1]
    assert (asked.prompt, [further.text for further in asked.further_prompts], asked.n) == ("One ", ["Two "], 2)


async def test_several_prompts_may_be_token_ids(http: httpx.AsyncClient, worker: ScriptedWorker) -> None:
    worker.script = [[started()], [finish(), finish(index=1), usage()]]
    response = await http.post(URL, json={"model": MODEL, "prompt": [[5, 6], [7]]})
    assert [choice["index"] for choice in response.json()["choices"]] == [0, 1]
    asked = worker.requests[-1]
    assert (list(asked.prompt_token_ids), [list(f.token_ids.ids) for f in asked.further_prompts]) == ([5, 6], [[7]])


def scored(index: int, *tokens: str) -> pb.Event:
    """Return the first delta of a choice, with the log probabilities of its prompt's tokens and of one more."""
    entries = [pb.TokenLogprob(token=text, token_bytes=text.encode(), logprob=-1.5) for text in tokens]
    for entry in entries:
        entry.top.add(token="x", logprob=-0.5)
    delta = pb.Delta(index=index, content=tokens[-1], token_count=1)
    delta.prompt_logprobs.extend(entries[:-1])
    delta.logprobs.append(entries[-1])
    return pb.Event(delta=delta)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("prompt", [["One ", "سلام"], [[1, 2], [3]]])
async def test_the_tokens_of_an_echoed_prompt_have_log_probabilities(
    sdk: openai.AsyncOpenAI, lenient: openai.AsyncOpenAI, worker: ScriptedWorker, *, prompt: Any, stream: bool
) -> None:
    worker.script = [
        [started(), scored(0, "One", " ", "a"), scored(1, "سلام", "!")],
        [finish(index=0), finish(index=1), usage(2)],
    ]
    asked: Any = await lenient.completions.create(model=MODEL, prompt=prompt, echo=True, logprobs=1, stream=stream)
    parts = [chunk async for chunk in asked] if stream else [asked]
    texts, values, tops, offsets = ["", ""], [[], []], [[], []], [[], []]
    for choice in (choice for part in parts for choice in part.choices):
        texts[choice.index] += choice.text
        if choice.logprobs:
            values[choice.index] += choice.logprobs.token_logprobs
            tops[choice.index] += choice.logprobs.top_logprobs
            offsets[choice.index] += choice.logprobs.text_offset
    assert texts == ["One a", "سلام!"]
    assert values == [[None, -1.5, -1.5], [None, -1.5]]
    assert tops == [[None, {"x": -0.5}, {"x": -0.5}], [None, {"x": -0.5}]]
    assert offsets == [[0, 3, 4], [0, 4]]
    assert worker.requests[-1].logprobs.prompt


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("logprobs", [None, 1])
async def test_no_tokens_and_an_echo_return_the_prompt_alone(
    lenient: openai.AsyncOpenAI, worker: ScriptedWorker, *, logprobs: int | None, stream: bool
) -> None:
    # What is generated comes with the prompt's log probabilities.
    worker.script = [
        [started(), scored(0, "One", " two", " a") if logprobs else content(" a")],
        [finish(pb.FINISH_REASON_STOP), usage(1)],
    ]
    asked: Any = await lenient.completions.create(
        model=MODEL, prompt="One two", max_tokens=0, echo=True, logprobs=logprobs, stream=stream
    )
    choices = [choice for part in ([part async for part in asked] if stream else [asked]) for choice in part.choices]
    assert "".join(choice.text for choice in choices) == "One two"
    assert choices[-1].finish_reason == "length"
    values = [value for choice in choices if choice.logprobs for value in choice.logprobs.token_logprobs]
    assert values == ([None, -1.5] if logprobs else [])
    assert worker.requests[-1].sampling.max_tokens == 1


async def test_no_tokens_without_an_echo_are_an_empty_continuation(
    sdk: openai.AsyncOpenAI, worker: ScriptedWorker
) -> None:
    worker.script = [[started(), content(" a")], [finish(pb.FINISH_REASON_STOP), usage(1)]]
    (choice,) = (await sdk.completions.create(model=MODEL, prompt="One", max_tokens=0)).choices
    assert (choice.text, choice.finish_reason) == ("", "length")


async def test_the_best_of_several_continuations_are_returned(sdk: openai.AsyncOpenAI, worker: ScriptedWorker) -> None:
    def of(index: int, event: pb.Event) -> pb.Event:
        event.delta.index = index
        return event

    worker.script = [
        [started(), of(0, token("a", -2)), of(1, token("b", -1)), of(2, token("c", -0.1)), of(2, token("d", -1.5))],
        [*(finish(index=index) for index in range(3)), usage(4)],
    ]
    found = await sdk.completions.create(model=MODEL, prompt="z", best_of=3, n=2)
    assert [(choice.index, choice.text, choice.logprobs) for choice in found.choices] == [
        (0, "cd", None),
        (1, "b", None),
    ]
    assert (worker.requests[-1].n, worker.requests[-1].HasField("logprobs")) == (3, True)


async def test_a_suffix_reaches_the_worker_even_without_text_before_it(
    http: httpx.AsyncClient, worker: ScriptedWorker
) -> None:
    worker.script = [[started()], [finish(), usage()]]
    assert (await http.post(URL, json={"model": MODEL, "prompt": "", "suffix": "b"})).status_code == 200
    assert (worker.requests[-1].prompt, worker.requests[-1].suffix) == ("", "b")
