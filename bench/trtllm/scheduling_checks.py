"""Checks of several requests, cancellation and the prefix cache."""

from __future__ import annotations

import time

from bench.trtllm.subject import ANSWER_SECONDS, Skipped, Subject

IDLE_SECONDS = 20


def cancel(subject: Subject) -> str:
    """Check that a cancelled request stops and frees its slot."""
    reader = subject.start(subject.question, ignore_eos=True)
    assert reader.started.wait(ANSWER_SECONDS), "no token came"
    reader.cancelled = True
    began = time.monotonic()
    subject.engine.wake()
    reader.wait()
    assert reader.reason == "cancelled", reader.reason
    while subject.engine.load().in_flight:
        assert time.monotonic() - began < IDLE_SECONDS, f"still running after {IDLE_SECONDS} s"
        time.sleep(0.01)
    return f"free after {time.monotonic() - began:.3f} s"


def many(subject: Subject) -> str:
    """Check that twice as many requests as slots all complete."""
    count = 2 * subject.engine.slots
    readers = [subject.start(subject.question, ignore_eos=True, max_tokens=32) for _ in range(count)]
    assert all(len(reader.wait().token_ids) == 32 for reader in readers)
    return f"{count} requests"


def cache(subject: Subject) -> str:
    """Check that a tenant's prompt is cached only for this tenant."""
    prompt = subject.ids(" ".join(str(number) for number in range(200)))
    used = [subject.ask(prompt, max_tokens=1, cache_salt=salt).usage.cached_tokens for salt in ("one", "one", "two")]
    assert used[0] == used[2] == 0, f"cached tokens: {used}"
    if not used[1]:
        raise Skipped("nothing is cached: is enable_block_reuse off?")
    return f"{used[1]} of {len(prompt)} tokens"
