"""The behaviour of every engine, through a real Triton."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest

from services.runtime.failure import Failure, Reason
from tests.contract.triton.subjects import (
    CONTEXT_LENGTH,
    QUESTION,
    REPLAY,
    SLOTS,
    SMOLLM2,
    STORY,
    TRTLLM_12,
    VLLM,
    Subject,
)
from tests.support import vllm_models
from tests.support.triton_servers import Answer, response
from tests.support.waits import until


async def generate(subject: Subject, prompt: list[int], **params: Any) -> Answer:
    return await response(subject.client, subject.model, prompt, in_steps=subject.in_steps, **params)


async def load(subject: Subject) -> dict[str, Any]:
    description = await subject.client.describe(subject.model)
    return dict(description["load"])


async def until_idle(subject: Subject) -> None:
    async def idle() -> bool:
        now = await load(subject)
        return bool(now["in_flight"] == now["queued"] == 0)

    await until(idle)


WITHOUT_STRUCTURED_OUTPUT = ("replay",)
"""Engines that do not compile structured output."""


async def test_a_model_describes_its_engine_and_its_load(subject: Subject) -> None:
    description = await subject.client.describe(subject.model)
    assert description["engine"] in ("llamacpp", "replay", "trtllm", "vllm")
    assert description["version"]
    assert bool(description["structured_output_library"]) == bool(description["structured_output_library_version"])
    assert bool(description["structured_output_library"]) == (description["engine"] not in WITHOUT_STRUCTURED_OUTPUT)
    assert description["context_length"] == CONTEXT_LENGTH
    assert description["slots"] == SLOTS
    assert {"max_tokens", "temperature", "logprobs", "window"} <= set(description["supported_parameters"])
    assert description["load"].keys() == {
        *("in_flight", "queued", "kv_cache_use", "last_token_age_s"),
        *("tokens_per_second", "cancelled_total", "generated_tokens_total", "slow_steps_total", "step_age_s"),
        "prefix_cache_hit_rate",
    }


async def test_reports_its_usage(subject: Subject) -> None:
    result = await generate(subject, STORY, max_tokens=12, ignore_eos=True)
    assert len(result.token_ids) == 12
    assert result.finish_reason == "length"
    assert result.usage["prompt_tokens"] == len(STORY)
    assert result.usage["completion_tokens"] == 12
    timings = result.usage["timings"]
    assert timings["first_token_s"] >= timings["queued_s"] + timings["prefill_s"] - 0.001
    assert timings["decode_s"] > 0


async def test_only_the_last_output_has_finish_reason_and_usage(subject: Subject) -> None:
    result = await generate(subject, STORY, max_tokens=5, ignore_eos=True)
    assert [o.finish_reason for o in result.outputs[:-1]] == [None] * (len(result.outputs) - 1)
    assert [o.usage for o in result.outputs[:-1]] == [None] * (len(result.outputs) - 1)


async def test_the_end_of_sequence_token_is_sent_and_counted(subject: Subject) -> None:
    result = await generate(subject, QUESTION, temperature=0)
    assert result.finish_reason == "stop"
    assert result.token_ids[-1] == 2
    assert result.usage["completion_tokens"] == len(result.token_ids)


async def test_ignore_eos_continues_after_the_end(subject: Subject) -> None:
    result = await generate(subject, QUESTION, temperature=0, ignore_eos=True, max_tokens=20)
    assert len(result.token_ids) == 20
    assert result.finish_reason == "length"


async def lacks(subject: Subject, parameter: str, **params: Any) -> bool:
    """Return whether the engine does not support a parameter, and rejects a request with it."""
    if parameter in (await subject.client.describe(subject.model))["supported_parameters"]:
        return False
    with pytest.raises(Failure) as rejection:
        await generate(subject, QUESTION, **params)
    assert rejection.value.message.id == "engine_lacks_parameter"
    return True


async def test_generates_at_least_min_tokens(subject: Subject) -> None:
    if await lacks(subject, "min_tokens", min_tokens=15):
        return
    result = await generate(subject, QUESTION, temperature=0, min_tokens=15, max_tokens=20)
    assert len(result.token_ids) >= 15


async def test_a_stop_token_does_not_end_the_generation_before_min_tokens(subject: Subject) -> None:
    if await lacks(subject, "min_tokens", min_tokens=8):
        return
    whole = await generate(subject, STORY, temperature=0, max_tokens=10)
    stops = [*dict.fromkeys(whole.token_ids[:5])]
    result = await generate(subject, STORY, temperature=0, min_tokens=8, max_tokens=10, stop_token_ids=stops)
    assert len(result.token_ids) >= 8


async def test_a_stop_token_ends_the_generation_and_is_sent(subject: Subject) -> None:
    whole = await generate(subject, STORY, temperature=0, max_tokens=10)
    stop = whole.token_ids[5]
    result = await generate(subject, STORY, temperature=0, max_tokens=10, stop_token_ids=[stop])
    assert result.token_ids == whole.token_ids[: whole.token_ids.index(stop) + 1]
    assert result.finish_reason == "stop"


async def test_without_max_tokens_the_generation_ends_with_the_context(subject: Subject) -> None:
    prompt = STORY * 60
    result = await generate(subject, prompt, ignore_eos=True)
    assert len(prompt) + len(result.token_ids) == CONTEXT_LENGTH
    assert result.finish_reason == "length"


@pytest.mark.parametrize(("prompt", "max_tokens"), [(STORY, CONTEXT_LENGTH - 3), (STORY * 64, 1), (STORY * 70, None)])
async def test_a_request_that_exceeds_the_context_is_rejected(
    subject: Subject, prompt: list[int], max_tokens: int | None
) -> None:
    with pytest.raises(Failure) as rejection:
        await generate(subject, prompt, max_tokens=max_tokens)
    assert rejection.value.reason is Reason.CONTEXT_LENGTH_EXCEEDED
    message = rejection.value.message
    assert message.id in ("engine_context_full", "engine_context_exceeded")
    assert message.parameters["limit"] == str(CONTEXT_LENGTH)
    assert message.parameters.get("prompt", message.parameters["value"]) == str(len(prompt))


async def test_a_request_may_fill_the_context_exactly(subject: Subject) -> None:
    result = await generate(subject, STORY * 60, max_tokens=CONTEXT_LENGTH - 240, ignore_eos=True)
    assert len(result.token_ids) == CONTEXT_LENGTH - 240


@pytest.mark.parametrize(
    ("params", "named"),
    [({"tempo": 1}, "tempo"), ({"temperature": 3}, "temperature=3"), ({"max_tokens": "many"}, 'max_tokens="many"')],
)
async def test_an_invalid_parameter_is_rejected_by_name(subject: Subject, params: dict[str, Any], named: str) -> None:
    with pytest.raises(Failure) as rejection:
        await generate(subject, STORY, **params)
    assert rejection.value.reason is Reason.INVALID_ARGUMENT
    assert rejection.value.message.id == "engine_parameters_not_valid"
    assert named in str(rejection.value.message.parameters["reason"])


@pytest.mark.parametrize(
    "subject", [SMOLLM2, REPLAY, TRTLLM_12, pytest.param(VLLM, marks=vllm_models.MARKS)], indirect=True
)
async def test_images_are_rejected_by_an_engine_without_vision(subject: Subject) -> None:
    with pytest.raises(Failure) as rejection:
        async for _ in subject.generate(STORY, {}, images=[b"\x89PNG"]):
            pass
    assert rejection.value.reason is Reason.UNSUPPORTED_PARAMETER
    assert rejection.value.message.id in ("images_not_supported", "engine_lacks_parameter")


async def test_an_empty_prompt_is_rejected(subject: Subject) -> None:
    with pytest.raises(Failure) as rejection:
        await generate(subject, [])
    assert rejection.value.message.id == "prompt_empty"


async def test_log_probabilities_come_with_every_token(subject: Subject) -> None:
    result = await generate(subject, STORY, max_tokens=6, ignore_eos=True, temperature=0, logprobs=2)
    for output in result.outputs:
        assert output.logprobs is not None
        assert output.top_token_ids is not None
        assert output.top_logprobs is not None
        assert len(output.logprobs) == len(output.top_token_ids) == len(output.top_logprobs) == len(output.token_ids)
        for token_id, own, ids, values in zip(
            output.token_ids, output.logprobs, output.top_token_ids, output.top_logprobs, strict=True
        ):
            assert own <= 0
            assert ids[0] == token_id
            assert values == sorted(values, reverse=True)
            assert values[0] == pytest.approx(own, abs=1e-5)


async def test_logprobs_of_0_returns_only_those_of_the_chosen_tokens(subject: Subject) -> None:
    result = await generate(subject, STORY, max_tokens=3, ignore_eos=True, logprobs=0)
    assert all(o.logprobs is not None and len(o.logprobs) == len(o.token_ids) for o in result.outputs)
    assert all(o.top_token_ids is None for o in result.outputs)


async def test_there_are_no_log_probabilities_by_default(subject: Subject) -> None:
    result = await generate(subject, STORY, max_tokens=3)
    assert all(o.logprobs is None and o.top_token_ids is None for o in result.outputs)


async def test_more_requests_than_slots_are_all_served(subject: Subject) -> None:
    results = await asyncio.gather(*(generate(subject, STORY, max_tokens=8, ignore_eos=True) for _ in range(3 * SLOTS)))
    assert [len(r.token_ids) for r in results] == [8] * 3 * SLOTS
    assert max(r.usage["timings"]["queued_s"] for r in results) > 0


async def test_a_higher_priority_goes_first(subject: Subject) -> None:
    finished: list[int] = []

    async def run(priority: int, tokens: int) -> None:
        await generate(subject, STORY, max_tokens=tokens, ignore_eos=True, priority=priority)
        finished.append(priority)

    async def busy(*, in_flight: int, queued: int) -> None:
        async def holds() -> bool:
            now = await load(subject)
            return bool(now["in_flight"] == in_flight and now["queued"] == queued)

        await until(holds)

    async with asyncio.TaskGroup() as tasks:
        for _ in range(SLOTS):
            tasks.create_task(run(0, 150))
        await busy(in_flight=SLOTS, queued=0)
        tasks.create_task(run(1, 1))
        await busy(in_flight=SLOTS, queued=1)
        tasks.create_task(run(2, 1))
        await busy(in_flight=SLOTS, queued=2)
    assert finished.index(2) < finished.index(1)


async def test_cancelling_stops_the_engine(subject: Subject) -> None:
    before = (await load(subject))["cancelled_total"]
    stream = subject.generate(STORY, {"ignore_eos": True})
    await anext(stream)
    await stream.aclose()
    await until_idle(subject)
    assert (await load(subject))["cancelled_total"] == before + 1
    generated = (await load(subject))["generated_tokens_total"]
    await asyncio.sleep(0.2)
    assert (await load(subject))["generated_tokens_total"] == generated


async def test_a_waiting_request_can_be_cancelled(subject: Subject) -> None:
    before = (await load(subject))["cancelled_total"]
    async with asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(generate(subject, STORY, ignore_eos=True)) for _ in range(SLOTS)]

        async def full() -> bool:
            return bool((await load(subject))["in_flight"] == SLOTS)

        await until(full)
        waiting = tasks.create_task(generate(subject, STORY))

        async def one_waits() -> bool:
            return bool((await load(subject))["queued"] == 1)

        await until(one_waits)
        waiting.cancel()

        async def none_waits() -> bool:
            return bool((await load(subject))["queued"] == 0)

        await until(none_waits, seconds=2)
        assert (await load(subject))["in_flight"] == SLOTS
        for task in running:
            task.cancel()
    await until_idle(subject)
    assert (await load(subject))["cancelled_total"] == before + SLOTS + 1


# TensorRT-LLM and vLLM cannot pause a request: see test_trtllm.py and test_vllm.py.
@pytest.mark.parametrize("subject", [SMOLLM2, REPLAY], indirect=True)
async def test_a_request_pauses_while_its_reader_is_behind(subject: Subject) -> None:
    window = 4
    before = (await load(subject))["generated_tokens_total"]
    stream = subject.generate(STORY, {"ignore_eos": True}, window=window)
    async with contextlib.aclosing(stream):
        count = len((await anext(stream)).token_ids)
        previous = -1

        async def stands_still() -> bool:
            nonlocal previous
            now = (await load(subject))["generated_tokens_total"] - before
            await asyncio.sleep(0.15)
            previous, moved = now, now != previous
            return not moved

        await until(stands_still)
        assert previous < 100
        assert (await load(subject))["in_flight"] == 1
        async for output in stream:
            count += len(output.token_ids)
    assert count == CONTEXT_LENGTH - len(STORY)


async def test_control_requests_are_answered_while_a_request_is_paused(subject: Subject) -> None:
    paused = subject.generate(STORY, {"ignore_eos": True}, window=1)
    async with contextlib.aclosing(paused):
        await anext(paused)
        result = await generate(subject, STORY, max_tokens=20, ignore_eos=True)
        assert len(result.token_ids) == 20
    await until_idle(subject)


async def test_a_request_id_may_be_used_again(subject: Subject) -> None:
    results = await asyncio.gather(*(generate(subject, STORY, max_tokens=5, ignore_eos=True) for _ in range(2)))
    assert [len(r.token_ids) for r in results] == [5, 5]


async def test_an_unknown_model_is_unavailable(subject: Subject) -> None:
    assert not await subject.client.is_ready("nobody")
    with pytest.raises(Failure) as failure:
        await subject.client.describe("nobody")
    assert failure.value.reason is Reason.MODEL_UNAVAILABLE
