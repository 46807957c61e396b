from __future__ import annotations

from services.stack import triton

LOG = (
    'W1123 17:50:52.084301 7198 pinned_memory_manager.cc:273] "Unable to allocate pinned system memory"\n'
    'E1123 17:50:52.084506 7198 server.cc:241] "CudaDriverHelper has not been initialized."\n'
)
FAILED = (
    "E1123 17:50:52.485954 7198 model_lifecycle.cc:642] \"failed to load 'smollm2-135m' version 1: Internal: "
    "TritonModelException: engine llamacpp: there is no model file /x.gguf\\n\\nAt:\\n  "
    '/tmp/model.py(24): <module>\\n"\n'
    "error: creating server: Internal - failed to load all models\n"
)


def test_the_explanation_names_a_failed_model_and_its_reason() -> None:
    assert triton.explain(LOG + FAILED) == "model smollm2-135m: engine llamacpp: there is no model file /x.gguf"


def test_without_a_failed_model_the_explanation_is_the_last_error() -> None:
    assert triton.explain(LOG + "error: failed to start HTTP service\n") == "error: failed to start HTTP service"


def test_the_explanation_of_an_empty_log_is_empty() -> None:
    assert triton.explain("") == ""
