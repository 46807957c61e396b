"""Compiles structured outputs for trial with llama.cpp's library and a model's vocabulary, without its weights."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from typing import Any

from services.inference.triton_backend.contract import StructuredOutput
from services.inference.triton_backend.engines.llama_api import LlamaApi
from services.inference.triton_backend.engines.llama_structured_output import StructuredOutputs
from services.inference.triton_backend.faulty_part import located
from services.worker.triton_kit.request_error import RequestError


def prepare(arguments: Mapping[str, Any]) -> Callable[[str, str], None]:
    """Return the function that compiles for the GGUF file `model`. Raises ValueError if it cannot be loaded."""
    api = LlamaApi()
    params = api.lib.llama_model_default_params()
    params.vocab_only = True
    model = api.lib.llama_model_load_from_file(str(arguments["model"]).encode(), params)
    if model == api.ffi.NULL:
        raise ValueError(f"{arguments['model']} cannot be loaded: {api.last_error() or 'llama.cpp gave no reason'}")
    vocab = api.lib.llama_model_get_vocab(model)
    structured_outputs = StructuredOutputs(api, vocab, api.lib.llama_vocab_n_tokens(vocab))

    def compile_structured_output(kind: str, text: str) -> None:
        """Make a sampler and a copy, as the engine does, and free both."""
        api.lib.llama_sampler_free(structured_outputs.copy_of(StructuredOutput(kind, text)))
        structured_outputs.close()

    def compiles(schema: str) -> bool:
        try:
            compile_structured_output("json", schema)
        except RequestError:
            return False
        return True

    def compile_or_reject(kind: str, text: str) -> None:
        try:
            compile_structured_output(kind, text)
        except RequestError as error:
            with contextlib.suppress(ValueError, AttributeError, LookupError):
                raise located(kind, text, compiles) or error from None
            raise

    # The first structured output prepares the vocabulary, which every trial inherits.
    compile_structured_output("json_object", "")
    return compile_or_reject
