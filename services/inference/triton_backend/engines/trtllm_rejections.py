"""Decides whether an error of TensorRT-LLM at the start of a request is the caller's fault or the engine's end."""

from __future__ import annotations

from dataclasses import dataclass

from services.inference.triton_backend.contract import Request
from services.inference.triton_backend.engines.trtllm_probe import Probe
from services.worker.triton_kit.request_error import RequestError


class EngineEndedError(Exception):
    """The engine has ended, with the error in `cause`."""

    def __init__(self, cause: Exception) -> None:
        """Note the error with which the engine has ended."""
        super().__init__(str(cause))
        self.cause = cause


@dataclass(frozen=True)
class Rejections:
    """Judges errors of one loaded model."""

    probe: Probe

    async def judge(self, request: Request, error: Exception) -> RequestError | EngineEndedError:
        """Return a RequestError if the error is about `request`, or else the end of the engine."""
        # An error of another thread, of any type, is raised for the next request, after it has ended the engine.
        if self.probe.api.has_ended(self.probe.llm):
            return EngineEndedError(error)
        # Only an error of the engine itself can be its end. Images are read by code that raises any error, so that a
        # probe decides for them. A busy engine does not answer it in time, and works.
        if isinstance(error, RuntimeError):
            end = await self.probe.run() if request.images else error
            if end is not None and self.probe.is_end(end):
                return EngineEndedError(end)
        return RequestError("INVALID_ARGUMENT", "engine_rejects_request", reason=str(error))
