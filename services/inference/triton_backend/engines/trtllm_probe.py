"""Shows whether TensorRT-LLM still works, by a request for one token."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from typing import Any, Final

from services.inference.triton_backend.checkpoint import Checkpoint
from services.inference.triton_backend.contract import Params, Request
from services.inference.triton_backend.engines.trtllm_api import TrtllmApi, is_request_error

PROBE_SECONDS: Final = 10.0
"""The timeout of a probe. A busy engine may take longer."""


@dataclass(frozen=True)
class Probe:
    """Probes one loaded model. It must be used in the engine's loop."""

    api: TrtllmApi
    llm: Any
    checkpoint: Checkpoint

    async def run(self) -> Exception | None:
        """Generate one token. Return None if the engine works, TimeoutError if it does not answer, or its error."""
        request = Request(Params(max_tokens=1), [0])
        result: Any = None
        try:
            prompt = self.api.prompt(request, llm=self.llm, checkpoint=self.checkpoint)
            result = self.api.generate(self.llm, prompt, request, limit=1, checkpoint=self.checkpoint)
            async with asyncio.timeout(PROBE_SECONDS):
                async for _ in result:
                    pass
        except TimeoutError as error:
            with contextlib.suppress(Exception):
                result.abort()
            return error
        except Exception as error:  # noqa: BLE001 - the engine may raise any error
            return error
        return None

    def is_end(self, error: Exception) -> bool:
        """Return whether an error of the engine says that it has ended."""
        if self.api.has_ended(self.llm):
            return True
        return isinstance(error, RuntimeError) and not is_request_error(error)
