"""A stand-in for NVIDIA's TensorRT-LLM, which cannot be imported without a GPU. It contains none of NVIDIA's code.

It behaves like TensorRT-LLM 1.2 and 1.3, also where their behaviour is surprising; the file VERSION beside this one
selects the version. Its model replays the responses in `stand_in.json` of the model directory, one token per step:

    {"eos_token_id": 2, "special_tokens": {"<|image_pad|>": 49000}, "step_ms": 5, "guided": {"json_object": "{}"},
     "answers": [{"prompt_contains": [7, 8], "token_ids": [5, 6, 2], ...}]}

A response is repeated until something ends it. The response to images is their colours. Further keys of a response
make it misbehave: see `Script` in executor/engine.py.
"""

from tensorrt_llm import version
from tensorrt_llm.llmapi.llm import LLM as LLM
from tensorrt_llm.sampling_params import SamplingParams as SamplingParams

__version__ = version.VERSION
