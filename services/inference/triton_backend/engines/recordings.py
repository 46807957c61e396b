"""The file that the replay engine plays from: a JSON list of recordings, the first that matches a prompt wins."""

from __future__ import annotations

import json
from array import array
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Recording:
    """An answer to play back."""

    name: str
    token_ids: tuple[int, ...]
    prompt_contains: tuple[int, ...] = ()
    """Ids that stand in the prompt, next to one another. Empty: every prompt matches."""
    images_sha256: tuple[str, ...] | None = None
    """SHA-256 of the request's images, in hex and in order. None: whatever images there are."""
    image_sizes: tuple[tuple[int, int], ...] | None = None
    """The sizes to which the images are to be brought. None: any."""
    start_ms: float = 0.0
    """From the request's place in the engine to its first token."""
    interval_ms: float = 0.0
    """Between two tokens."""
    tokens_per_response: int = 1
    """So many tokens become ready together, when the last of them is due."""
    at_ms: tuple[float, ...] | None = None
    """When each token is due, instead of `start_ms` and `interval_ms`."""
    logprobs: tuple[float, ...] | None = None
    """Each token's log probability. None: all are certain (0)."""
    top_logprobs: tuple[tuple[tuple[int, float], ...], ...] | None = None
    """Per token the most probable ones, as pairs of id and log probability. None: the token itself."""
    error: str = ""
    """`REASON: message` with which the request fails after the tokens."""
    crash: bool = False
    """The whole engine fails after the tokens, as when a device is lost."""

    stall_s: float = 0.0
    """The engine's thread stands still for so long after the tokens, as when a device hangs."""

    def due_ms(self, index: int) -> float:
        """When token `index` is due. Beyond the end the recording plays again."""
        round_, index = divmod(index, len(self.token_ids))
        if self.at_ms is None:
            return self.start_ms + (round_ * len(self.token_ids) + index) * self.interval_ms
        return round_ * self.at_ms[-1] + self.at_ms[index]

    def matches(self, prompt: bytes, images: tuple[str, ...] = (), sizes: tuple[tuple[int, int], ...] = ()) -> bool:
        """Return whether `prompt`, bytes of 32-bit ids, contains `prompt_contains`, and the images are the same."""
        if self.images_sha256 not in (None, images) or self.image_sizes not in (None, sizes):
            return False
        wanted = array("i", self.prompt_contains).tobytes()
        found = prompt.find(wanted)
        while found % 4 and found != -1:
            found = prompt.find(wanted, found + 1)
        return found != -1


def read(path: Path) -> list[Recording]:
    """Read a file of recordings. Raises ValueError that names the recording and what is wrong with it."""
    try:
        entries = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from None
    if not isinstance(entries, list) or not entries:
        raise ValueError(f"{path} must hold a JSON list of recordings")
    return [_recording(path, i, entry) for i, entry in enumerate(entries)]


def _recording(path: Path, index: int, entry: Any) -> Recording:
    place = f"{path}, recording {index}"
    if not isinstance(entry, dict) or not {"name", "token_ids"} <= entry.keys():
        raise ValueError(f"{place}: expected an object with at least name and token_ids")
    unknown = entry.keys() - {f.name for f in fields(Recording)}
    if unknown:
        raise ValueError(f"{place}: unknown key {min(unknown)!r}")
    recording = Recording(**{key: _frozen(value) for key, value in entry.items()})
    for name in ("at_ms", "logprobs", "top_logprobs"):
        values = getattr(recording, name)
        if values is not None and len(values) != len(recording.token_ids):
            raise ValueError(f"{place}: {name} has {len(values)} entries for {len(recording.token_ids)} tokens")
    if recording.tokens_per_response < 1:
        raise ValueError(f"{place}: tokens_per_response={recording.tokens_per_response} must be at least 1")
    return recording


def _frozen(value: Any) -> Any:
    return tuple(map(_frozen, value)) if isinstance(value, list) else value
