from tensorrt_llm.llmapi.llm import LLM as LLM
from tensorrt_llm.llmapi.llm_args import KvCacheConfig as KvCacheConfig
from tensorrt_llm.llmapi.llm_args import TorchLlmArgs as TorchLlmArgs
from tensorrt_llm.sampling_params import GuidedDecodingParams as GuidedDecodingParams
from tensorrt_llm.sampling_params import SamplingParams as SamplingParams
