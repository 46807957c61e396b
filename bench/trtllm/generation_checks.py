"""Checks of tokens, text and the end of a response."""

from __future__ import annotations

from bench.trtllm.subject import Subject
from services.inference.triton_backend.engines.trtllm_result import UNLIKELY
from services.worker.triton_kit.request_error import RequestError


def tokens(subject: Subject) -> str:
    """Check that a request of n tokens returns n token ids, and that the usage counts all of them."""
    response = subject.ask(subject.question, temperature=0, ignore_eos=True, max_tokens=48)
    assert len(response.token_ids) == response.usage.completion_tokens == 48, f"{len(response.token_ids)} instead of 48"
    assert response.reason == "length", response.reason
    assert response.usage.prompt_tokens == len(subject.question), response.usage
    return f"first token after {response.usage.first_token_s:.3f} s, then {47 / response.usage.decode_s:.0f}/s"


def text(subject: Subject) -> str:
    """Check that a prompt as text yields the same as its token ids."""
    prompt = "The capital of France is"
    by_text = subject.ask(prompt, temperature=0, max_tokens=8).token_ids
    assert by_text == subject.ask(subject.ids(prompt), temperature=0, max_tokens=8).token_ids
    return repr(subject.engine.tokenizer.decode(by_text))


def greedy(subject: Subject) -> str:
    """Check that a temperature of 0 repeats a response, and that a high one does not."""
    first = subject.greedy(subject.question)
    assert first == subject.greedy(subject.question), "two greedy responses differ"
    sampled = [subject.ask(subject.question, temperature=2, ignore_eos=True, max_tokens=24).token_ids for _ in range(3)]
    assert any(other != sampled[0] for other in sampled), "three responses at temperature 2 are the same"
    return f"{len(first)} tokens twice"


def end(subject: Subject) -> str:
    """Check that the end token ends a response as its last id."""
    response = subject.ask(subject.question, temperature=0, max_tokens=512)
    assert response.reason == "stop", response.reason
    assert response.token_ids[-1] in subject.engine.checkpoint.end_ids, f"the last id is {response.token_ids[-1]}"
    return f"{response.token_ids[-1]} after {subject.text(response)!r}"


def stop(subject: Subject) -> str:
    """Check that a stop token ends a response as its last id, but not before min_tokens."""
    whole = subject.greedy(subject.question)
    token_id = whole[5]
    stopped = subject.greedy(subject.question, stop_token_ids=[token_id])
    assert stopped == whole[: whole.index(token_id) + 1], stopped
    least = whole.index(token_id) + 4
    late = subject.greedy(subject.question, stop_token_ids=[token_id], min_tokens=least)
    assert len(late) >= least, f"{len(late)} tokens instead of at least {least}"
    return f"at {token_id}"


def min_tokens(subject: Subject) -> str:
    """Check that the end token does not end a response before min_tokens."""
    subject.needs("min_tokens")
    response = subject.ask(subject.question, temperature=0, min_tokens=40, max_tokens=60)
    assert len(response.token_ids) >= 40, f"{len(response.token_ids)} tokens"
    return f"{len(response.token_ids)} tokens"


def logprobs(subject: Subject) -> str:
    """Check that each token has a log probability and the requested number of alternatives."""
    subject.needs("logprobs")
    for count in (0, 1, 5, 20):
        response = subject.ask(subject.question, temperature=1, ignore_eos=True, max_tokens=24, logprobs=count)
        assert len(response.logprobs) == len(response.token_ids), (
            f"logprobs={count}: {len(response.logprobs)} for 24 tokens"
        )
        assert all(UNLIKELY < value <= 0 for value in response.logprobs), f"logprobs={count}: {min(response.logprobs)}"
        widths = {len(pairs) for pairs in response.top}
        assert widths == ({count} if count else set()), f"logprobs={count}: {widths} most probable ones"
    return "0, 1, 5 and 20"


def too_long(subject: Subject) -> str:
    """Check that a prompt that fills the context gets a response, and that a longer one is rejected."""
    length = subject.engine.context_length
    prompt = (subject.ids(" word") * length)[: length - 1]
    assert len(subject.ask(prompt, ignore_eos=True).token_ids) == 1
    try:
        subject.ask([*prompt, prompt[0]])
    except RequestError as error:
        return f"{length - 1} tokens; one more: {error.reason}"
    raise AssertionError("a prompt as long as the context was not rejected")
