"""The file of the replay engine: a JSON list of recordings, of which the first that matches a prompt is played."""

from __future__ import annotations

import json
from array import array
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Recording:
    """A recorded generation."""

    name: str
    token_ids: tuple[int, ...]
    prompt_contains: tuple[int, ...] = ()
    """Consecutive ids of the prompt. Empty: every prompt matches."""
    images_sha256: tuple[str, ...] | None = None
    """The SHA-256 of the request's images, in hex and in order. None: any images match."""
    image_sizes: tuple[tuple[int, int], ...] | None = None
    """The sizes to which the images are to be resized. None: any sizes match."""
    start_ms: float = 0.0
    """The time from the start of the request in a slot to its first token."""
    interval_ms: float = 0.0
    """The time between two tokens."""
    tokens_per_response: int = 1
    """The number of tokens that are sent together, when the last of them is due."""
    at_ms: tuple[float, ...] | None = None
    """The times at which the tokens are due, instead of `start_ms` and `interval_ms`."""
    logprobs: tuple[float, ...] | None = None
    """The log probability of each token. None: all are 0."""
    top_logprobs: tuple[tuple[tuple[int, float], ...], ...] | None = None
    """For each token, the most probable ones, as pairs of id and log probability. None: the token itself."""
    cached_tokens: int = 0
    """The number of the prompt's tokens that are reported as read from the prefix cache."""
    error: str = ""
    """`REASON: message` with which the request fails after the tokens."""
    crash: bool = False
    """Whether the whole engine fails after the tokens, as when a device is lost."""
    stall_s: float = 0.0
    """The time for which the engine's thread is blocked after the tokens, as when a device hangs."""

    def due_ms(self, index: int) -> float:
        """Return the time at which token `index` is due. The recording is repeated after its end."""
        if self.at_ms is None:
            return self.start_ms + index * self.interval_ms
        round_, index = divmod(index, len(self.token_ids))
        return round_ * self.at_ms[-1] + self.at_ms[index]

    def matches(self, prompt: bytes, images: tuple[str, ...] = (), sizes: tuple[tuple[int, int], ...] = ()) -> bool:
        """Return whether `prompt`, bytes of 32-bit ids, contains `prompt_contains`, and the images are the same."""
        if self.images_sha256 not in (None, images) or self.image_sizes not in (None, sizes):
            return False
        part = array("i", self.prompt_contains).tobytes()
        offset = prompt.find(part)
        while offset % 4 and offset != -1:
            offset = prompt.find(part, offset + 1)
        return offset != -1


def read(path: Path) -> list[Recording]:
    """Read a file of recordings. Raises ValueError, whose message names the recording and its fault."""
    try:
        entries = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from None
    if not isinstance(entries, list) or not entries:
        raise ValueError(f"{path} must hold a JSON list of recordings")
    return [_recording(path, i, entry) for i, entry in enumerate(entries)]


def _recording(path: Path, index: int, entry: Any) -> Recording:
    where = f"{path}, recording {index}"
    if not isinstance(entry, dict) or not {"name", "token_ids"} <= entry.keys():
        raise ValueError(f"{where}: expected an object with at least name and token_ids")
    unknown = entry.keys() - {f.name for f in fields(Recording)}
    if unknown:
        raise ValueError(f"{where}: unknown key {min(unknown)!r}")
    recording = Recording(**{key: _frozen(value) for key, value in entry.items()})
    for name in ("at_ms", "logprobs", "top_logprobs"):
        values = getattr(recording, name)
        if values is not None and len(values) != len(recording.token_ids):
            raise ValueError(f"{where}: {name} has {len(values)} entries for {len(recording.token_ids)} tokens")
    if recording.tokens_per_response < 1:
        raise ValueError(f"{where}: tokens_per_response={recording.tokens_per_response} must be at least 1")
    return recording


def _frozen(value: Any) -> Any:
    return tuple(map(_frozen, value)) if isinstance(value, list) else value
