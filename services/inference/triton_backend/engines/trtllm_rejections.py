"""Decides whether an error of TensorRT-LLM at the start of a request is the caller's fault or the engine's end."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, Final

from services.inference.triton_backend.contract import Params, Request
from services.inference.triton_backend.engines.trtllm_api import TrtllmApi, is_request_error
from services.inference.triton_backend.engines.trtllm_checkpoint import Checkpoint
from services.worker.triton_kit.request_error import RequestError

PROBE_SECONDS: Final = 10.0
"""The timeout of the request that shows whether the engine works."""


@dataclass(frozen=True)
class Rejections:
    """Judges errors of one loaded model."""

    api: TrtllmApi
    llm: Any
    checkpoint: Checkpoint

    async def judge(self, request: Request, error: Exception) -> Exception:
        """Return a RequestError if the error is about `request`, or the error with which the engine has ended."""
        # Only an error of the engine itself can be its end. Images are read by code that raises any error, so that a
        # probe decides for them.
        if isinstance(error, RuntimeError) and not is_request_error(error):
            end = await self._end_of_engine() if request.images else error
            if end is not None:
                return end
        return RequestError("INVALID_ARGUMENT", "engine_rejects_request", reason=str(error))

    async def _end_of_engine(self) -> Exception | None:
        """Generate one token, and return the error of an engine that has ended, or None."""
        request = Request(Params(max_tokens=1), [0])
        try:
            probe = self.api.generate(self.llm, self.api.inputs(request), request, limit=1, checkpoint=self.checkpoint)
            async with asyncio.timeout(PROBE_SECONDS):
                async for _ in probe:
                    pass
        except TimeoutError:
            # A busy engine takes longer, and works.
            probe.abort()
        except Exception as error:  # noqa: BLE001 - the engine may raise any error
            return error if isinstance(error, RuntimeError) and not is_request_error(error) else None
        return None
