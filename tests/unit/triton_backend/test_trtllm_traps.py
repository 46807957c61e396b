"""Every workaround for TensorRT-LLM's surprising answers is tested: without it, a test must fail."""

from __future__ import annotations

import pytest

from services.inference.triton_backend.engines import trtllm, trtllm_api, trtllm_probe, trtllm_result
from tests.support.trtllm_engine import Bench
from tests.unit.triton_backend import test_trtllm as tests
from tests.unit.triton_backend import test_trtllm_failures as failures
from tests.unit.triton_backend import test_trtllm_loading as loading
from tests.unit.triton_backend import test_trtllm_mixtures as mixtures
from tests.unit.triton_backend.traps import NEW, OLD, PENALTIES, Trap, catches, with_patch

TRAPS = [
    Trap(
        "the default sampler of 1.2 ignores penalties",
        OLD,
        trtllm_api,
        'and (other_sampler or at_least(self.version, _TORCH_SAMPLER_SINCE.get(name, "0.0")))',
        "",
        lambda bench: tests.test_parameters_that_the_sampler_ignores_are_unsupported(
            bench, "auto", {*PENALTIES, "min_p", "seed", "structured_output", "calls", "logit_bias", "min_tokens"}
        ),
    ),
    Trap(
        "with an end_id, their tokenizer is not asked",
        NEW,
        trtllm_api,
        '"detokenize": False,',
        '"detokenize": False, "end_id": 2,',
        tests.test_each_request_has_its_own_parameters_completed_by_the_tokenizer,
    ),
    Trap(
        "only the tokenizer's end token ends an answer",
        NEW,
        trtllm_api,
        "(frozenset() if params.ignore_eos else checkpoint.end_ids)",
        "frozenset()",
        tests.test_tensorrt_llm_gets_every_end_token,
    ),
    Trap(
        "an answer has 32 tokens",
        NEW,
        trtllm_api,
        '"max_tokens": limit,',
        "",
        tests.test_a_generation_without_a_limit_is_longer_than_the_default_of_tensorrt_llm,
    ),
    Trap(
        "their difference is stale where nothing is new",
        NEW,
        trtllm_result,
        "output.token_ids[first : self._limit]",
        "output.token_ids_diff",
        tests.test_tokens_for_a_slow_reader_are_sent_once_it_has_capacity,
    ),
    Trap(
        "the last result takes tokens back",
        NEW,
        trtllm_result,
        "self.taken += len(token_ids)",
        "self.taken = len(output.token_ids)",
        tests.test_tokens_removed_from_the_last_result_have_no_effect,
    ),
    Trap(
        "a final result may have no reason",
        NEW,
        trtllm_result,
        'if reason not in ("stop", "length"):',
        "if False:",
        lambda bench: tests.test_a_generation_that_tensorrt_llm_ends_early_is_an_error(
            bench, "NONE", "without a reason"
        ),
    ),
    Trap(
        "one of several choices ends without a reason",
        NEW,
        trtllm_api,
        '"max_tokens": limit,',
        '"max_tokens": limit, "n": 2,',
        tests.test_an_end_token_that_is_not_returned_is_known_by_the_finish_reason,
    ),
    Trap(
        "several choices of the most probable tokens are rejected",
        NEW,
        trtllm_api,
        '"max_tokens": limit,',
        '"max_tokens": limit, "n": 2,',
        lambda bench: tests.test_a_temperature_of_zero_is_repeatable(bench, "auto"),
    ),
    Trap(
        "0 requests no log probabilities",
        OLD,
        trtllm_api,
        "return max(1, value)",
        "return value",
        tests.test_logprobs_of_0_returns_only_those_of_the_chosen_tokens,
    ),
    Trap(
        "log probabilities may be bare numbers",
        OLD,
        trtllm_result,
        "if isinstance(entry, dict)",
        "if True",
        tests.test_log_probabilities_may_be_bare_numbers,
    ),
    Trap(
        "a prompt beyond max_num_tokens is rejected",
        NEW,
        trtllm_api,
        'return {**arguments, "max_num_tokens": most}',
        "return dict(arguments)",
        loading.test_the_longest_prompt_is_not_rejected,
    ),
    Trap(
        "a refusal of 1.3 looks like the engine's end",
        NEW,
        trtllm_probe,
        " and not is_request_error(error)",
        "",
        failures.test_a_rejected_request_does_not_end_the_engine,
    ),
    Trap(
        "mm_processor_kwargs is unpacked where there is none",
        OLD,
        trtllm_api,
        '{"prompt": text, "mm_processor_kwargs": {}} if sees',
        '{"prompt": text} if sees',
        mixtures.test_a_prompt_of_text_runs_beside_one_with_an_image,
    ),
    Trap(
        "a request changes its parameters",
        NEW,
        trtllm_api,
        "return self._package.SamplingParams(**values)",
        'return self.__dict__.setdefault("_shared", self._package.SamplingParams(**values))',
        tests.test_each_request_has_its_own_parameters_completed_by_the_tokenizer,
    ),
    Trap(
        "a RequestError is one request's",
        NEW,
        trtllm,
        "        if is_request_error(error):\n",
        "        if False:\n",
        failures.test_a_request_error_does_not_affect_others,
    ),
    Trap(
        "to stop reading does not stop an answer",
        NEW,
        trtllm,
        "job.result.abort()",
        "pass",
        failures.test_a_cancelled_request_stops_in_tensorrt_llm,
    ),
    Trap(
        "nothing may follow an abort",
        NEW,
        trtllm,
        "job.deadline.reschedule(self._loop.time() + ABORT_SECONDS)",
        "pass",
        lambda bench: with_patch(failures.test_an_abort_without_a_last_result_releases_the_slot, bench),
    ),
    Trap(
        "an answer may be cancelled without a word",
        NEW,
        trtllm,
        'self._end(job, _failed("TensorRT-LLM gave the request up"))',
        "pass",
        failures.test_a_task_that_tensorrt_llm_cancels_ends_its_request,
    ),
    Trap(
        "the end token may be left out",
        NEW,
        trtllm_result,
        "return [] if ended_by is None else [ended_by]",
        "return []",
        lambda bench: tests.test_the_end_token_is_sent_once_whether_tensorrt_llm_returns_it_or_not(
            bench, hides_eos=True
        ),
    ),
    Trap(
        "stop tokens do not wait for min_tokens",
        NEW,
        trtllm_api,
        "None if params.min_tokens else sorted(stops) or None",
        "sorted(stops) or None",
        tests.test_a_stop_token_waits_for_min_tokens,
    ),
]


@pytest.mark.parametrize(("version", "trap"), [pytest.param(t.version, t, id=t.name) for t in TRAPS])
def test_a_test_fails_without_the_workaround(bench: Bench, trap: Trap) -> None:
    catches(bench, trap)
