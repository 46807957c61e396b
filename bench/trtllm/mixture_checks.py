"""Checks that requests with different parameters, prompts and images run beside one another."""

from __future__ import annotations

import time
from typing import Any

from bench.trtllm.image_checks import picture
from bench.trtllm.subject import ANSWER_SECONDS, Reader, Skipped, Subject

STEPS = 8
"""The tokens that a request must get after another one began beside it."""
SHORT = 24


def bias_beside(subject: Subject) -> str:
    """Check that a request with a bias ends none without, in either order."""
    subject.needs("logit_bias")
    token_id = subject.ids("7")[-1]
    other = subject.start(subject.question, ignore_eos=True)
    assert other.started.wait(ANSWER_SECONDS), "no token came"
    biased = subject.ask(subject.question, temperature=0, max_tokens=3, logit_bias={str(token_id): 100})
    assert biased.token_ids == [token_id] * 3, biased.token_ids
    goes_on(other)
    late = subject.start(subject.question, ignore_eos=True, logit_bias={str(token_id): -100})
    assert late.started.wait(ANSWER_SECONDS), "no token came"
    assert len(subject.greedy(subject.question, 8)) == 8
    goes_on(late)
    for reader in (other, late):
        stop(subject, reader)
    return "both orders"


def text_beside_image(subject: Subject) -> str:
    """Check that a prompt of text and one with an image run beside each other, and change neither answer."""
    if subject.engine.checkpoint.image_token_id is None:
        raise Skipped("the model does not support images")
    prompt = subject.chat([{"type": "image"}, {"type": "text", "text": "Name the colour in one word."}])
    red = [picture((220, 20, 20))]
    alone = subject.greedy(subject.question)
    seen = subject.ask(prompt, red, temperature=0, max_tokens=8).token_ids
    other = subject.start(subject.question, ignore_eos=True)
    assert other.started.wait(ANSWER_SECONDS), "no token came"
    assert subject.ask(prompt, red, temperature=0, max_tokens=8).token_ids == seen, "text changes the image's answer"
    goes_on(other)
    stop(subject, other)
    image = subject.start(prompt, red, ignore_eos=True)
    assert image.started.wait(ANSWER_SECONDS), "no token came"
    assert subject.greedy(subject.question) == alone, "the image changes the text's answer"
    goes_on(image)
    stop(subject, image)
    return subject.engine.tokenizer.decode(seen)


def mixed(subject: Subject) -> str:
    """Check that twice as many requests as slots complete, each with other parameters."""
    token_id = str(subject.ids("7")[-1])
    kinds: list[dict[str, Any]] = [
        {"temperature": 0},
        {"temperature": 1, "top_p": 0.9, "top_k": 20},
        {"logprobs": 5},
        {"presence_penalty": 1.5, "frequency_penalty": 0.5},
        {"repetition_penalty": 1.1},
        {"min_p": 0.1},
        {"seed": 7},
        {"logit_bias": {token_id: 5}},
        {"min_tokens": 8},
        {"structured_output": {"regex": "[0-9]{8}"}},
    ]
    offered = subject.engine.supported_parameters
    kinds = [kind for kind in kinds if kind.keys() <= offered]
    readers = [
        subject.start(subject.question, max_tokens=SHORT, **kinds[number % len(kinds)])
        for number in range(2 * subject.engine.slots)
    ]
    for reader in readers:
        reader.wait()
    return f"{len(readers)} requests of {len(kinds)} kinds"


def long_beside_short(subject: Subject) -> str:
    """Check that prompts that fill the context run beside many short ones, also if their beginning is cached."""
    length = subject.engine.context_length - SHORT - 1
    prompt = (subject.ids(" the quick brown fox jumps over the lazy dog") * length)[:length]
    salt = {"cache_salt": "long"}
    began = time.monotonic()
    readers = []
    for tail in range(4):
        readers.append(subject.start([*prompt[: length - tail], *prompt[:tail]], max_tokens=SHORT, **salt))
        readers += [subject.start(subject.question, max_tokens=SHORT) for _ in range(subject.engine.slots)]
    for reader in readers:
        reader.wait()
    return f"4 prompts of {length} tokens and {len(readers) - 4} short ones in {time.monotonic() - began:.1f} s"


def goes_on(reader: Reader) -> None:
    """Check that a request that must not have ended gets further tokens."""
    seen, limit = len(reader.token_ids), time.monotonic() + ANSWER_SECONDS
    while len(reader.token_ids) < seen + STEPS and time.monotonic() < limit:
        if reader.has_ended:
            raise reader.error or AssertionError("the other request has ended; raise --context-length")
        time.sleep(0.01)
    assert len(reader.token_ids) >= seen + STEPS, "the other request gets no tokens any more"


def stop(subject: Subject, reader: Reader) -> None:
    """Cancel a request."""
    reader.cancelled = True
    subject.engine.wake()
    reader.wait()
