"""The estimate of a request's tokens counts all of its prompts and choices."""

from __future__ import annotations

from vilix.inference.v1 import inference_service_pb2 as pb

from services.gateway.tenancy.token_estimate import estimate_of


def test_each_prompt_has_its_tokens_and_its_choices() -> None:
    sampling = pb.SamplingParams(max_tokens=10)
    further = [pb.FurtherPrompt(text="b" * 400), pb.FurtherPrompt(token_ids=pb.TokenIds(ids=range(100)))]
    one = estimate_of(pb.GenerateRequest(prompt="a" * 400, n=2, sampling=sampling), reserve_output=50)
    all_of_them = estimate_of(
        pb.GenerateRequest(prompt="a" * 400, n=2, sampling=sampling, further_prompts=further), reserve_output=50
    )
    assert (one.output, one.max_output) == (20, 20)
    assert (all_of_them.output, all_of_them.max_output) == (60, 60)
    assert 200 <= all_of_them.prompt - one.prompt <= 210
