"""Prepares the inputs of requests for TensorRT-LLM, images in threads."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from services.inference.triton_backend.checkpoint import Checkpoint
from services.inference.triton_backend.engines.trtllm_api import TrtllmApi
from services.inference.triton_backend.engines.trtllm_job import Job
from services.inference.triton_backend.engines.trtllm_rejections import Rejections
from services.inference.triton_backend.prompt_images import decode
from services.worker.triton_kit.request_error import RequestError

IMAGES_AT_ONCE: Final = 2
"""The number of requests whose images are decoded at once: a large image takes hundreds of MiB meanwhile."""


class Inputs:
    """The inputs of the requests to one loaded model."""

    def __init__(self, api: TrtllmApi, llm: Any, checkpoint: Checkpoint, rejections: Rejections) -> None:
        """Prepare inputs for `llm`. `rejections` judges errors of TensorRT-LLM."""
        self._api: Final = api
        self._llm: Final = llm
        self._checkpoint: Final = checkpoint
        self._rejections: Final = rejections
        self._threads: Final = ThreadPoolExecutor(IMAGES_AT_ONCE, thread_name_prefix="trtllm-images")

    async def prepare(self, job: Job) -> Any:
        """Return the inputs of a request, or None if it has ended meanwhile, without waiting for the thread then.

        Raises RequestError or EngineEndedError.
        """
        prompt = self._api.prompt(job.request, llm=self._llm, checkpoint=self._checkpoint)
        if not job.request.images:
            return prompt
        job.preparing = asyncio.get_running_loop().run_in_executor(self._threads, self._with_images, job, prompt)
        try:
            return await job.preparing
        except asyncio.CancelledError:
            if not job.ended:
                raise
            return None
        except RequestError:
            raise
        except Exception as error:
            raise await self._rejections.judge(job.request, error) from error

    def close(self) -> None:
        """Stop the threads."""
        self._threads.shutdown(cancel_futures=True)

    def _with_images(self, job: Job, prompt: dict[str, Any]) -> Any:
        images = decode(job.request, is_wanted=lambda: not job.ended)
        return self._api.with_images(
            prompt, images, job.request, llm=self._llm, limit=job.limit, checkpoint=self._checkpoint
        )
