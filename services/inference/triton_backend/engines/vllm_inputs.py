"""Prepares the inputs of requests for vLLM, those with images in threads."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from services.inference.triton_backend.contract import output_limit
from services.inference.triton_backend.engines.vllm_job import Job
from services.inference.triton_backend.prompt_images import decode
from services.worker.triton_kit.request_error import RequestError

IMAGES_AT_ONCE: Final = 2
"""The number of requests whose images are decoded at once: a large image takes hundreds of MiB meanwhile."""


class Inputs:
    """The inputs of the requests to one loaded model."""

    def __init__(self, llm: Any, context_length: int) -> None:
        """Prepare inputs for the AsyncLLM `llm`."""
        self._renderer: Final = llm.renderer
        self._context_length: Final = context_length
        self._threads: Final = ThreadPoolExecutor(IMAGES_AT_ONCE, thread_name_prefix="vllm-images")

    async def prepare(self, job: Job) -> Any:
        """Return the inputs of a request, and set its limit by the length of its images. Raises RequestError."""
        if not job.request.images:
            return _with_salt({"type": "token", "prompt_token_ids": job.prompt}, job)
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._with_images, job)

    def close(self) -> None:
        """Stop the threads."""
        self._threads.shutdown(cancel_futures=True)

    def _with_images(self, job: Job) -> Any:
        images = decode(job.request, is_wanted=lambda: not job.ended)
        # With a text of its own, the renderer would decode the tokens to have one.
        prompt = {"prompt_token_ids": job.prompt, "prompt": "-", "multi_modal_data": {"image": images}}
        try:
            (inputs,) = self._renderer.render_cmpl([_with_salt(prompt, job)])
        except Exception as error:
            reason = " ".join(str(error).split())[:200]
            raise RequestError("INVALID_ARGUMENT", "engine_rejects_request", reason=reason) from error
        # Each placeholder has become as many as its image takes.
        job.limit = output_limit(len(inputs["prompt_token_ids"]), job.request.params, self._context_length)
        return inputs


def _with_salt(prompt: dict[str, Any], job: Job) -> dict[str, Any]:
    salt = job.request.params.cache_salt
    return {**prompt, "cache_salt": salt} if salt else prompt
