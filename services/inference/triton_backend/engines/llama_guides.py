"""Forms that answers are held to, made into llama.cpp's samplers, and kept for the next request with the same form."""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from typing import Any, Final

import numpy as np

from services.inference.triton_backend.contract import Guide, RequestError
from services.inference.triton_backend.engines.llama_api import INIT_LLGUIDANCE, LlamaApi
from services.inference.triton_backend.engines.llama_candidates import Candidates

LARK_MARK: Final = "%llguidance"
"""A `grammar` that begins with it is one of llguidance (a variant of Lark); another one is GBNF."""
MOST_KEPT: Final = 32


class Guides:
    """The samplers of guides for one vocabulary: the last MOST_KEPT stay, and each request has a copy."""

    def __init__(self, api: LlamaApi, vocab: Any, vocabulary: int) -> None:
        """Of `vocabulary` tokens."""
        self._api, self._lib, self._vocab = api, api.lib, vocab
        self._candidates = Candidates(api, vocabulary)
        self._vocabulary = vocabulary
        self._kept: Final[OrderedDict[Guide, tuple[Any, bool]]] = OrderedDict()
        self._lock = threading.Lock()

    def begin(self, guide: Guide) -> tuple[Any, bool]:
        """A sampler at the beginning of a guide, to be freed, and whether it looks at all tokens in under a millisecond.

        To make one takes up to a third of a second; only one thread may do it. Raises RequestError for a guide that is
        not valid.
        """
        begun = self.begin_kept(guide)
        return self._keep(guide, *self._made(guide)) if begun is None else begun

    def begin_kept(self, guide: Guide) -> tuple[Any, bool] | None:
        """The same for a guide that is kept, at once and in any thread; None for another."""
        with self._lock:
            return self._begun(guide) if guide in self._kept else None

    def close(self) -> None:
        """Free what was kept."""
        while self._kept:
            self._lib.llama_sampler_free(self._kept.popitem()[1][0])

    def _keep(self, guide: Guide, sampler: Any, is_fast: bool) -> tuple[Any, bool]:
        with self._lock:
            self._kept[guide] = sampler, is_fast
            if len(self._kept) > MOST_KEPT:
                self._lib.llama_sampler_free(self._kept.popitem(last=False)[1][0])
            return self._begun(guide)

    def _begun(self, guide: Guide) -> tuple[Any, bool]:
        self._kept.move_to_end(guide)
        sampler, is_fast = self._kept[guide]
        return self._lib.llama_sampler_clone(sampler), is_fast

    def _made(self, guide: Guide) -> tuple[Any, bool]:
        if guide.kind == "structural_tag":
            raise RequestError("UNSUPPORTED_PARAMETER", "guide.structural_tag is not supported by the engine llamacpp")
        if guide.kind == "grammar" and not guide.text.lstrip().startswith(LARK_MARK):
            sampler = self._lib.llama_sampler_init_grammar(self._vocab, guide.text.encode(), b"root")
            if sampler == self._api.ffi.NULL:
                raise _bad_guide(guide, self._api.last_error())
            return sampler, False
        return self._llguidance(guide), True

    def _llguidance(self, guide: Guide) -> Any:
        kind = {"grammar": "lark", "json_object": "json"}.get(guide.kind, guide.kind)
        text = _compact(guide.text or '{"type":"object"}') if kind == "json" else guide.text
        sampler = getattr(self._lib, INIT_LLGUIDANCE)(self._vocab, kind.encode(), text.encode())
        everything = self._candidates.fill(np.zeros(self._vocabulary, np.float32), [])
        self._lib.llama_sampler_apply(sampler, everything)
        if self._candidates.allow_all() or not self._candidates.allowed():
            self._lib.llama_sampler_free(sampler)
            raise _bad_guide(guide)
        return sampler


def _compact(schema: str) -> str:
    """Without room for white space, of which small models would write forever."""
    try:
        value = json.loads(schema)
    except ValueError:
        return schema
    return json.dumps({"x-guidance": {"whitespace_flexible": False}, **value}) if isinstance(value, dict) else schema


def _bad_guide(guide: Guide, reason: str = "") -> RequestError:
    shown = guide.text if len(guide.text) <= 80 else guide.text[:77] + "..."
    return RequestError(
        "INVALID_ARGUMENT",
        f"guide.{guide.kind} is not valid, or has a part that the engine does not know: {shown}"
        + (f" ({reason})" if reason else ""),
    )
