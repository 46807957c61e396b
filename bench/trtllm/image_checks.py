"""Checks of images in prompts."""

from __future__ import annotations

import io
import itertools
import json
import math
import time
from collections.abc import Sequence
from pathlib import Path

from bench.trtllm.subject import ANSWER_SECONDS, Skipped, Subject

QUIET_SECONDS = 0.2
MOST_IMAGES = 16
USUAL_PIXELS = 12845056


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


def largest_image(subject: Subject) -> str:
    """Check that an image with the most pixels that the checkpoint reads, or that fit the context, gets an answer."""
    if subject.engine.checkpoint.image_token_id is None:
        raise Skipped("the model does not support images")
    prompt = subject.chat([{"type": "image"}, {"type": "text", "text": "Name the colour."}])
    # A token of Qwen-VL is 32 pixels squared, or 28.
    fitting = (subject.engine.context_length - len(prompt) - 64) * 28**2
    side = math.isqrt(min(most_pixels(subject.directory), fitting)) // 224 * 224
    response = subject.ask(prompt, [picture((20, 20, 220), side)], image_sizes=[[side, side]], max_tokens=8)
    return f"{side}²: {response.usage.prompt_tokens - len(prompt) + 1} tokens, {subject.text(response)!r}"


def most_images(subject: Subject) -> str:
    """Check that a prompt with 16 images gets an answer."""
    if subject.engine.checkpoint.image_token_id is None:
        raise Skipped("the model does not support images")
    images = [picture((220, 20, 20) if number % 2 else (20, 20, 220)) for number in range(MOST_IMAGES)]
    parts = [*({"type": "image"} for _ in images), {"type": "text", "text": "How many images are there?"}]
    response = subject.ask(subject.chat(parts), images, temperature=0, max_tokens=8)
    return f"{response.usage.prompt_tokens} tokens, {subject.text(response)!r}"


def most_pixels(directory: Path) -> int:
    """Return the most pixels of an image that the checkpoint in `directory` reads."""
    try:
        rule = json.loads((directory / "preprocessor_config.json").read_text())
    except OSError:
        return USUAL_PIXELS
    return int(rule.get("max_pixels") or (rule.get("size") or {}).get("longest_edge") or USUAL_PIXELS)


def longest(moments: Sequence[float], first: float, last: float) -> float | None:
    """Return the longest gap that ends between `first` and `last`, or None if no gap does."""
    return max((b - a for a, b in itertools.pairwise(moments) if first <= b <= last), default=None)


def picture(colour: tuple[int, int, int], side: int = 224) -> bytes:
    """Return a PNG of one colour."""
    from PIL import Image  # noqa: PLC0415 - only a model with images needs it

    data = io.BytesIO()
    Image.new("RGB", (side, side), colour).save(data, "PNG")
    return data.getvalue()
