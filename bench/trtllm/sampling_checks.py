"""Checks of sampling parameters."""

from __future__ import annotations

from collections.abc import Callable

from bench.trtllm.subject import Subject


def penalty(name: str) -> Callable[[Subject], str]:
    """Return a check that a penalty changes a repetitive response."""

    def check(subject: Subject) -> str:
        subject.needs(name)
        plain, penalised = (subject.greedy(subject.repetition, 32, **extra) for extra in ({}, {name: 1.9}))
        assert plain != penalised, "it changes nothing"
        return "it changes the response"

    check.__doc__ = f"Check that {name} changes a repetitive response."
    return check


def seed(subject: Subject) -> str:
    """Check that the same seed repeats a response."""
    subject.needs("seed")
    first, second, other = (
        subject.ask(subject.question, temperature=2, ignore_eos=True, max_tokens=24, seed=number).token_ids
        for number in (7, 7, 8)
    )
    assert first == second, "the same seed gives different responses"
    assert first != other, "another seed gives the same response"
    return "it repeats"


def min_p(subject: Subject) -> str:
    """Check that min_p=1 is the same as greedy sampling."""
    subject.needs("min_p")
    sampled = subject.ask(subject.question, temperature=2, min_p=1, ignore_eos=True, max_tokens=8).token_ids
    assert sampled == subject.greedy(subject.question, 8)
    return "as greedy"


def bias(subject: Subject) -> str:
    """Check that a large bias forces a token."""
    subject.needs("logit_bias")
    token_id = subject.ids("7")[-1]
    assert subject.greedy(subject.question, 3, logit_bias={str(token_id): 100}) == [token_id] * 3
    return f"{token_id} three times"
