"""Checks of the engine trtllm on a machine with a GPU, each with a few short requests."""

from __future__ import annotations

import io
import itertools
import json
import re
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from services.inference.triton_backend.contract import Params, Request, Tokens, Usage
from services.inference.triton_backend.engines.trtllm import TrtllmEngine
from services.inference.triton_backend.engines.trtllm_result import UNLIKELY
from services.inference.triton_backend.params_parser import parse
from services.worker.triton_kit.request_error import RequestError

ANSWER_SECONDS = 300
"""The most seconds of one request. The first ones may wait for kernels to be compiled."""
IDLE_SECONDS = 20
QUIET_SECONDS = 0.2
SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}


class Skipped(Exception):
    """The check does not apply. The message says why."""


class Reader:
    """A sink that collects all outputs of a request."""

    def __init__(self) -> None:
        self.token_ids: list[int] = []
        self.logprobs: list[float] = []
        self.top: list[list[tuple[int, float]]] = []
        self.moments: list[float] = []
        """The times at which tokens arrived, in seconds of the monotonic clock."""
        self.reason = ""
        self.usage = Usage()
        self.error: RequestError | None = None
        self.cancelled = False
        self.started = threading.Event()
        self._ended = threading.Event()

    def has_capacity(self) -> bool:
        """Implement Sink."""
        return True

    def is_cancelled(self) -> bool:
        """Implement Sink."""
        return self.cancelled

    def emit(self, tokens: Tokens) -> None:
        """Implement Sink."""
        self.token_ids += tokens.token_ids
        self.logprobs += tokens.logprobs or []
        self.top += tokens.top or []
        self.moments.append(time.monotonic())
        self.started.set()

    def finish(self, finish_reason: str, usage: Usage, last: Tokens | None = None) -> None:
        """Implement Sink."""
        if last is not None:
            self.emit(last)
        self.reason, self.usage = finish_reason, usage
        self._ended.set()

    def fail(self, error: RequestError) -> None:
        """Implement Sink."""
        self.error = error
        self._ended.set()

    def wait(self) -> Reader:
        """Wait until the request ends, and raise the error that ended it, if there is one."""
        if not self._ended.wait(ANSWER_SECONDS):
            raise AssertionError(f"the request did not end within {ANSWER_SECONDS} s")
        if self.error is not None:
            raise self.error
        return self


class Subject:
    """A loaded engine, with functions that send it requests."""

    def __init__(self, engine: TrtllmEngine) -> None:
        self.engine = engine
        self._salts = itertools.count()
        self.question = self.chat("What is the capital of France? Answer in one word.")
        self.repetition = self.ids("ha ha ha ha ha ha ha ha")

    def chat(self, content: Any) -> list[int]:
        """Render a prompt of one user message with the checkpoint's template."""
        messages = [{"role": "user", "content": content}]
        text = self.engine.tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=True, enable_thinking=False
        )
        return self.ids(text)

    def ids(self, text: str) -> list[int]:
        """Return the token ids of a text."""
        return list(self.engine.tokenizer.encode(text, add_special_tokens=False))

    def text(self, response: Reader) -> str:
        """Return the text of a response without the token that ended it."""
        ends = self.engine.checkpoint.end_ids
        return str(self.engine.tokenizer.decode([i for i in response.token_ids if i not in ends]))

    def start(self, prompt: list[int] | str, images: Sequence[bytes] = (), **params: Any) -> Reader:
        """Start a request. Requests share nothing in the prefix cache unless they have the same `cache_salt`."""
        # Cached values may differ in their last digits, and then greedy responses differ.
        salt = {"cache_salt": f"smoke-{next(self._salts)}"}
        reader, parsed = Reader(), parse(json.dumps(salt | params))
        assert isinstance(parsed, Params)
        request = (
            Request(parsed, text_input=prompt, images=tuple(images))
            if isinstance(prompt, str)
            else Request(parsed, prompt, images=tuple(images))
        )
        self.engine.submit(request, reader)
        return reader

    def ask(self, prompt: list[int] | str, images: Sequence[bytes] = (), **params: Any) -> Reader:
        """Run a request to its end."""
        return self.start(prompt, images, **params).wait()

    def greedy(self, prompt: list[int], tokens: int = 24, **params: Any) -> list[int]:
        """Return the token ids of a greedy response."""
        return self.ask(prompt, temperature=0, ignore_eos=True, max_tokens=tokens, **params).token_ids

    def needs(self, parameter: str) -> None:
        """Raise Skipped for a parameter that the engine does not support."""
        if parameter not in self.engine.supported_parameters:
            raise Skipped("the engine does not support it")


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


def structured_outputs(subject: Subject) -> str:
    """Check that structured output matches its schema or regular expression."""
    subject.needs("structured_output")
    prompt = subject.chat("Name a city, as JSON with the key city.")
    value = json.loads(
        subject.text(subject.ask(prompt, temperature=0, max_tokens=64, structured_output={"json": SCHEMA}))
    )
    assert value.keys() == {"city"}, value
    json.loads(
        subject.text(subject.ask(prompt, temperature=0, max_tokens=128, structured_output={"json_object": True}))
    )
    number = subject.text(subject.ask(prompt, temperature=0, max_tokens=16, structured_output={"regex": "[0-9]{2}"}))
    assert re.fullmatch("[0-9]{2}", number), number
    return f"{value}, {number}"


def bad_structured_output(subject: Subject) -> str:
    """Check that structured output that cannot be compiled fails only its own request."""
    subject.needs("structured_output")
    try:
        subject.ask(subject.question, max_tokens=8, structured_output={"regex": "(unclosed"})
        message = "it was not rejected"
    except RequestError as error:
        message = str(error)
    assert len(subject.greedy(subject.question, 4)) == 4
    return message


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


def cache(subject: Subject) -> str:
    """Check that a tenant's prompt is cached only for this tenant."""
    prompt = subject.ids(" ".join(str(number) for number in range(200)))
    used = [subject.ask(prompt, max_tokens=1, cache_salt=salt).usage.cached_tokens for salt in ("one", "one", "two")]
    assert used[0] == used[2] == 0, f"cached tokens: {used}"
    if not used[1]:
        raise Skipped("nothing is cached: is enable_block_reuse off?")
    return f"{used[1]} of {len(prompt)} tokens"


def images(subject: Subject) -> str:
    """Check that images replace their placeholders in order."""
    if subject.engine.checkpoint.image_token_id is None:
        raise Skipped("the model does not support images")
    red, blue = picture((220, 20, 20)), picture((20, 20, 220))
    parts = [{"type": "image"}, {"type": "image"}, {"type": "text", "text": "Name the two images' colours in order."}]
    prompt = subject.chat(parts)
    responses = [subject.ask(prompt, pair, temperature=0, max_tokens=32) for pair in ([red, blue], [blue, red])]
    texts = [subject.text(response).lower() for response in responses]
    assert texts[0].find("blue") > texts[0].find("red") >= 0, f"a red and a blue image are {texts[0]!r}"
    assert texts[1].find("red") > texts[1].find("blue") >= 0, f"a blue and a red image are {texts[1]!r}"
    longer = responses[0].usage.prompt_tokens - len(prompt)
    assert longer > 0, "the images added no tokens"
    return f"+{longer} tokens; {texts[0]!r}, {texts[1]!r}"


def image_sizes(subject: Subject) -> str:
    """Check that images are scaled to the requested size: twice the side length is four times the tokens."""
    if subject.engine.checkpoint.image_token_id is None:
        raise Skipped("the model does not support images")
    prompt = subject.chat([{"type": "image"}, {"type": "text", "text": "Name the colour."}])

    def tokens_of(side: int) -> int:
        response = subject.ask(prompt, [picture((20, 20, 220))], image_sizes=[[side, side]], max_tokens=1)
        return response.usage.prompt_tokens - len(prompt) + 1

    # Side lengths within the bounds of every Qwen-VL model that yield whole tokens.
    small, large = tokens_of(448), tokens_of(896)
    assert large == 4 * small, f"448 pixels squared are {small} tokens, 896 are {large}"
    return f"448²: {small} tokens, 896²: {large}"


def image_gap(subject: Subject) -> str:
    """Check that tokens of one request continue while another's large images are processed; print the longest gap."""
    if subject.engine.checkpoint.image_token_id is None:
        raise Skipped("the model does not support images")
    pair = [picture((20, 20, 220), 2048)] * 2
    prompt = subject.chat([{"type": "image"}, {"type": "image"}, {"type": "text", "text": "Name the colour."}])
    sizes = [[896, 896]] * 2
    subject.ask(prompt, pair, image_sizes=sizes, max_tokens=1)
    stream = subject.start(subject.question, ignore_eos=True)
    assert stream.started.wait(ANSWER_SECONDS), "no token came"
    time.sleep(QUIET_SECONDS)
    began = time.monotonic()
    subject.ask(prompt, pair, image_sizes=sizes, max_tokens=1)
    ended = time.monotonic()
    time.sleep(QUIET_SECONDS)
    stream.cancelled = True
    subject.engine.wake()
    stream.wait()
    alone = longest(stream.moments, began - QUIET_SECONDS, began)
    beside = longest(stream.moments, began, ended + QUIET_SECONDS)
    if beside is None or alone is None:
        raise Skipped("the response ended before the images were processed; raise --context-length")
    return f"tokens at most {beside * 1000:.0f} ms apart, {alone * 1000:.0f} ms without images"


def longest(moments: Sequence[float], first: float, last: float) -> float | None:
    """Return the longest gap that ends between `first` and `last`, or None if no gap does."""
    return max((b - a for a, b in itertools.pairwise(moments) if first <= b <= last), default=None)


def picture(colour: tuple[int, int, int], side: int = 224) -> bytes:
    """Return a PNG of one colour."""
    from PIL import Image  # noqa: PLC0415 - only a model with images needs it

    data = io.BytesIO()
    Image.new("RGB", (side, side), colour).save(data, "PNG")
    return data.getvalue()


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


CHECKS: dict[str, Callable[[Subject], str]] = {
    "tokens": tokens,
    "text": text,
    "greedy": greedy,
    "end": end,
    "stop": stop,
    "min_tokens": min_tokens,
    "logprobs": logprobs,
    "cancel": cancel,
    "many": many,
    "structured_outputs": structured_outputs,
    "bad_structured_output": bad_structured_output,
    **{name: penalty(name) for name in ("presence_penalty", "frequency_penalty", "repetition_penalty")},
    "seed": seed,
    "min_p": min_p,
    "logit_bias": bias,
    "cache": cache,
    "images": images,
    "image_sizes": image_sizes,
    "image_gap": image_gap,
    "too_long": too_long,
}
