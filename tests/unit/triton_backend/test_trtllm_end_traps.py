"""Every defence against the end of TensorRT-LLM, and against its processes, is tested: without it, a test must fail."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from services.inference.triton_backend.engines import (
    trtllm,
    trtllm_api,
    trtllm_probe,
    trtllm_processes,
    trtllm_rejections,
    trtllm_statistics,
    trtllm_watchdog,
)
from tests.support.trtllm_engine import Bench
from tests.unit.triton_backend import test_trtllm as tests
from tests.unit.triton_backend import test_trtllm_mixtures as mixtures
from tests.unit.triton_backend import test_trtllm_processes as processes
from tests.unit.triton_backend import test_trtllm_watchdog as watchdog
from tests.unit.triton_backend.traps import NEW, OLD, PENALTIES, Trap, catches, with_file, with_patch


def hurried(test: Callable[[Bench, pytest.MonkeyPatch], object], bench: Bench) -> None:
    with pytest.MonkeyPatch.context() as patch:
        watchdog.hurry(patch)
        test(bench, patch)


TRAPS = [
    Trap(
        "a bias beside another request ends older engines",
        OLD,
        trtllm_api,
        '    "logit_bias": "1.3.0rc26",\n',
        "",
        mixtures.test_a_bias_is_supported_only_where_it_harms_nobody,
    ),
    Trap(
        "nobody knows which candidate survives a bias",
        NEW,
        trtllm_api,
        "if not other_sampler and self._ends_with_bias():",
        "if False:",
        lambda bench: with_file(mixtures.test_a_sampler_with_the_fatal_line_does_not_support_a_bias, bench),
    ),
    Trap(
        "prompts count for min_tokens",
        "1.3.0rc9",
        trtllm_api,
        '    "min_tokens": "1.3.0rc10",\n',
        "",
        lambda bench: tests.test_parameters_that_the_sampler_ignores_are_unsupported(
            bench, "auto", {*PENALTIES, "min_p", "seed", "structured_output", "calls", "logit_bias", "min_tokens"}
        ),
    ),
    Trap(
        "token ids beside images end older engines",
        "1.3.0rc20",
        trtllm_api,
        "if text is None and needs_text:",
        "if False:",
        mixtures.test_a_prompt_of_text_runs_beside_one_with_an_image,
    ),
    Trap(
        "text of token ids is read as other tokens",
        OLD,
        trtllm_api,
        "if list(tokenizer.encode(text, add_special_tokens=False)) == list(ids):",
        "if True:",
        lambda bench: mixtures.test_text_never_becomes_a_control_token(bench, OLD),
    ),
    Trap(
        "a probe beside images ends older engines",
        OLD,
        trtllm_probe,
        "prompt = self.api.prompt(request, llm=self.llm, checkpoint=self.checkpoint)",
        'prompt = {"prompt_token_ids": [0]}',
        mixtures.test_a_probe_harms_no_prompt_with_an_image,
    ),
    Trap(
        "a thread that has ended accepts requests",
        OLD,
        trtllm_watchdog,
        "elif self._is_urgent or silence >= self._stall_seconds:",
        "elif False:",
        lambda bench: hurried(
            lambda bench, patch: watchdog.test_an_engine_whose_thread_has_ended_is_failed(
                bench, patch, {"vanishes": True}
            ),
            bench,
        ),
    ),
    Trap(
        "a dead engine without requests looks idle",
        NEW,
        trtllm_watchdog,
        "return age if since is None else max(age or 0.0, round(time.monotonic() - since, 3))",
        "return age",
        lambda bench: hurried(
            watchdog.test_an_engine_that_lost_cancelled_requests_makes_no_progress_until_it_is_failed, bench
        ),
    ),
    Trap(
        "after an error of the device every request fails",
        NEW,
        trtllm_watchdog,
        "self._errors >= ERRORS_IN_A_ROW or _OF_THE_ENGINE.search(str(error))",
        "False",
        lambda bench: hurried(
            lambda bench, _: watchdog.test_an_engine_that_fails_every_request_is_failed(bench), bench
        ),
    ),
    Trap(
        "any error may be that of the device",
        NEW,
        trtllm_watchdog,
        "self._errors >= ERRORS_IN_A_ROW or ",
        "",
        lambda bench: hurried(watchdog.test_many_errors_in_a_row_cast_suspicion_on_the_engine, bench),
    ),
    Trap(
        "a caller's text is in the error of its request",
        NEW,
        trtllm_watchdog,
        "            self._is_urgent = True\n",
        "            self._fail(error)\n",
        lambda bench: hurried(watchdog.test_a_caller_cannot_end_the_engine_with_errors, bench),
    ),
    Trap(
        "a result may raise",
        OLD,
        trtllm,
        "elif isinstance(error, _OF_ONE_RESULT):",
        "elif False:",
        lambda bench: hurried(
            lambda bench, _: watchdog.test_a_result_that_cannot_be_read_ends_only_its_own_request(
                bench, "AssertionError"
            ),
            bench,
        ),
    ),
    Trap(
        "an error of another thread is raised for a caller",
        OLD,
        trtllm_rejections,
        "if self.probe.api.has_ended(self.probe.llm):",
        "if False:",
        lambda bench: hurried(
            lambda bench, _: watchdog.test_an_error_of_another_thread_is_the_end_and_not_the_callers_fault(bench), bench
        ),
    ),
    Trap(
        "the launcher starts one process for several GPUs",
        OLD,
        trtllm_api,
        "        trtllm_processes.reject_missing_job(arguments)\n",
        "",
        lambda bench: with_patch(processes.test_several_gpus_need_an_mpi_job, bench),
    ),
    Trap(
        "sizes are those of one rank",
        NEW,
        trtllm_api,
        "size = -(-slots // trtllm_processes.independent_ranks(arguments))",
        "size = slots",
        lambda bench: with_patch(processes.test_slots_are_those_of_all_ranks, bench),
    ),
    Trap(
        "the capacity of the cache is that of one rank",
        NEW,
        trtllm_api,
        "of_rank * trtllm_processes.independent_ranks(arguments)",
        "of_rank",
        lambda bench: with_patch(processes.test_slots_are_those_of_all_ranks, bench),
    ),
    Trap(
        "1.3 reports its use to NVIDIA",
        NEW,
        trtllm_processes,
        'os.environ[name] = "1"',
        "os.environ.pop(name, None)",
        processes.test_nothing_is_reported_to_nvidia,
    ),
    Trap(
        "statistics are off",
        OLD,
        trtllm_api,
        'arguments.setdefault("enable_iter_perf_stats", True)',
        "pass",
        lambda bench: with_patch(processes.test_after_a_pause_statistics_are_read_again, bench),
    ),
    Trap(
        "after a pause statistics end",
        OLD,
        trtllm_statistics,
        "iterations.mark_undone()",
        "pass",
        lambda bench: with_patch(processes.test_after_a_pause_statistics_are_read_again, bench),
    ),
]


@pytest.mark.parametrize(("version", "trap"), [pytest.param(t.version, t, id=t.name) for t in TRAPS])
def test_a_test_fails_without_the_workaround(bench: Bench, trap: Trap) -> None:
    catches(bench, trap)
