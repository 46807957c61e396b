"""The vision projector of a GGUF model, which llama.cpp calls mmproj, with its library mtmd.

An image becomes embeddings, one per token, which the model reads in place of tokens. The models of the Qwen-VL family
count an image's positions in three dimensions (M-RoPE): time, row and column.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from services.inference.triton_backend.contract import Request
from services.inference.triton_backend.engines.llama_api import LlamaApi
from services.inference.triton_backend.prompt_images import decode
from services.worker.triton_kit.request_error import RequestError

PLACEHOLDER: Final = "<|image_pad|>"
"""The token that stands for an image in prompts of the Qwen-VL family."""
MOST_TOKENS: Final = 16_384
"""The most tokens of an image; so many that mtmd never resizes an image, whose size the worker has chosen."""
_IMAGE: Final = 1
"""mtmd's MTMD_INPUT_CHUNK_TYPE_IMAGE."""


@dataclass(frozen=True, slots=True)
class PreparedImage:
    """An encoded image."""

    embeddings: npt.NDArray[np.float32]
    """One row per token."""
    positions: npt.NDArray[np.int32]
    """Four rows with the positions of each token, from 0: time, row, column, and one that is not used."""
    advance: int
    """The number of positions that the image takes; fewer than there are tokens."""

    def __len__(self) -> int:
        """Return the number of tokens."""
        return len(self.embeddings)


class LlamaVision:
    """A loaded mmproj file. Used by one thread at a time, which need not be that of the model."""

    def __init__(self, api: LlamaApi, path: Path, *, model: Any, width: int, threads: int) -> None:
        """Load the projector for `model`, whose embeddings have `width` numbers. Raises ValueError or OSError."""
        if not path.is_file():
            raise FileNotFoundError(f"there is no mmproj file {path}")
        self._lib, self._ffi, self._api = api.lib, api.ffi, api
        self._width: Final = width
        params = self._lib.mtmd_context_params_default()
        params.use_gpu = params.print_timings = params.warmup = False
        params.n_threads = threads
        params.image_min_tokens, params.image_max_tokens = 1, MOST_TOKENS
        self._context = self._lib.mtmd_init_from_file(str(path).encode(), model, params)
        if self._context == self._ffi.NULL:
            raise ValueError(f"{path} cannot be loaded: {api.last_error() or 'llama.cpp gave no reason'}")
        if not self._lib.mtmd_support_vision(self._context) or not self._lib.mtmd_decode_use_mrope(self._context):
            self.close()
            raise ValueError(f"{path} is of another kind than those of the Qwen-VL family, which are supported")

    def encode(self, width: int, height: int, rgb: bytes) -> PreparedImage:
        """Encode an image of `width` × `height` pixels, which takes long. Raises RuntimeError if that fails."""
        with ExitStack() as stack:
            chunk = self._chunk(stack, width, height, rgb)
            if self._lib.mtmd_encode_chunk(self._context, chunk) != 0:
                raise RuntimeError(f"the image could not be encoded: {self._api.last_error()}")
            count = self._lib.mtmd_input_chunk_get_n_tokens(chunk)
            embeddings = self._ffi.buffer(self._lib.mtmd_get_output_embd(self._context), count * self._width * 4)
            return PreparedImage(
                np.frombuffer(embeddings, np.float32).reshape(count, self._width).copy(),
                self._positions(chunk, count),
                self._lib.mtmd_input_chunk_get_n_pos(chunk),
            )

    def close(self) -> None:
        """Free everything."""
        self._lib.mtmd_free(self._context)

    def _chunk(self, stack: ExitStack, width: int, height: int, rgb: bytes) -> Any:
        """Return the image without the tokens that mtmd adds around it, which the prompt has already."""
        bitmap = self._lib.mtmd_bitmap_init(width, height, self._ffi.from_buffer("unsigned char[]", rgb))
        stack.callback(self._lib.mtmd_bitmap_free, bitmap)
        chunks = self._lib.mtmd_input_chunks_init()
        stack.callback(self._lib.mtmd_input_chunks_free, chunks)
        text = self._ffi.new("mtmd_input_text *")
        text.text = self._lib.mtmd_get_marker(self._context)
        text.text_len = len(self._ffi.string(text.text))
        bitmaps = self._ffi.new("mtmd_bitmap * []", [bitmap])
        if self._lib.mtmd_tokenize(self._context, chunks, text, bitmaps, 1) != 0:
            raise RuntimeError(f"the image could not be prepared: {self._api.last_error()}")
        all_chunks = [
            self._lib.mtmd_input_chunks_get(chunks, i) for i in range(self._lib.mtmd_input_chunks_size(chunks))
        ]
        images = [chunk for chunk in all_chunks if self._lib.mtmd_input_chunk_get_type(chunk) == _IMAGE]
        if len(images) != 1:
            raise RuntimeError(f"the image was cut into {len(images)} parts; only whole ones are supported")
        return images[0]

    def _positions(self, chunk: Any, count: int) -> npt.NDArray[np.int32]:
        tokens = self._lib.mtmd_input_chunk_get_tokens_image(chunk)
        positions = [self._lib.mtmd_image_tokens_get_decoder_pos(tokens, 0, i) for i in range(count)]
        return np.array([[p.t, p.y, p.x, p.z] for p in positions], np.int32).T.copy()


def encoded(vision: LlamaVision, request: Request, *, is_wanted: Callable[[], bool]) -> list[PreparedImage]:
    """Return the encoded images of a request. Raises RequestError, also when `is_wanted` returns False."""
    images = []
    for image in decode(request, is_wanted=is_wanted):
        if not is_wanted():
            raise RequestError("ENGINE_FAILED", "engine_failed", reason="the image is not wanted any more")
        images.append(vision.encode(image.width, image.height, image.tobytes()))
    return images
