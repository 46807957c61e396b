from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict


class KvCacheConfig(BaseModel):
    model_config = ConfigDict(extra="forbid")

    enable_block_reuse: bool = True
    max_tokens: int | None = None
    free_gpu_memory_fraction: float = 0.9
    host_cache_size: int | None = None
    dtype: Literal["auto", "fp8", "nvfp4"] = "auto"
    tokens_per_block: int = 32


class TorchLlmArgs(BaseModel):
    model_config = ConfigDict(extra="forbid")

    model: str
    trust_remote_code: bool = False
    tensor_parallel_size: int = 1
    moe_expert_parallel_size: int | None = None
    pipeline_parallel_size: int = 1
    enable_attention_dp: bool = False
    attention_dp_config: dict[str, Any] | None = None
    enable_iter_perf_stats: bool = False
    encode_only: bool = False
    model_kwargs: dict[str, Any] | None = None
    max_batch_size: int = 2048
    max_num_tokens: int = 8192
    max_seq_len: int | None = None
    max_input_len: int = 1024
    num_postprocess_workers: int = 0
    skip_tokenizer_init: bool = False
    enable_chunked_prefill: bool = False
    guided_decoding_backend: Literal["xgrammar", "llguidance"] | None = None
    kv_cache_config: KvCacheConfig = KvCacheConfig()
    cuda_graph_config: dict[str, Any] | None = None
    sampler_type: str = "auto"
    stream_interval: int = 1
