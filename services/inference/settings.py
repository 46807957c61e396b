"""Settings of the inference worker."""

from __future__ import annotations

from pydantic import Field

from services.inference.model.engine_status import STALL_SECONDS
from services.inference.triton_backend.prompt_images import MOST_PIXELS
from services.worker.settings import ListenAddress, WorkerSettings


class InferenceSettings(WorkerSettings):
    """Serves language models by gRPC, through a Triton that runs beside it."""

    listen: ListenAddress = "127.0.0.1:9001"
    models: str = Field(
        description="Comma-separated ID=DIRECTORY: each model's id in the catalog, and the directory with its "
        "tokenizer.json, tokenizer_config.json and generation_config.json."
    )
    max_choices: int = Field(128, ge=1, le=128, description="The most choices (`n`) of one request.")
    max_messages: int = Field(2048, ge=1, description="The most messages of one request.")
    max_prompt_bytes: int = Field(
        8 * 2**20, ge=1, le=32 * 2**20, description="The largest prompt text of one request, in bytes of UTF-8."
    )
    max_image_pixels: int = Field(50_000_000, ge=1, le=MOST_PIXELS, description="The most pixels of one image.")
    max_images_pixels: int = Field(100_000_000, ge=1, description="The most pixels of all images of one request.")
    engine_stall_seconds: float = Field(
        STALL_SECONDS,
        ge=1,
        description="A model is unavailable, and its open requests end with an error, when its engine has not "
        "answered, or has made no progress with its requests, for this time. A step of an engine takes well under a "
        "second; the first steps after its start may take some seconds.",
    )
    idle_seconds: float = Field(
        30.0,
        gt=0,
        description="A request ends with an error when the engine is silent between two tokens for this time.",
    )
    first_token_seconds: float = Field(
        300.0,
        gt=0,
        description="The longest wait for the first token, in the engine's queue and for its prefill. It starts anew "
        "whenever the engine reports progress with the prompt, as llama.cpp's does.",
    )
