"""Names the arguments that each engine accepts, to find a typing error when the catalog is read, without a GPU."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path
from typing import Final

ENGINES: Final = Path(__file__).parents[1] / "triton_backend" / "engines"

OF_TENSORRT_LLM: Final = frozenset(
    {"allreduce_strategy", "attention_dp_config", "attn_backend", "backend", "batch_wait_max_tokens_ratio"}
    | {"batch_wait_timeout_iters", "batch_wait_timeout_ms", "cache_transceiver_config", "checkpoint_format"}
    | {"context_parallel_size", "cp_config", "cuda_graph_config", "disable_overlap_scheduler", "dtype"}
    | {"enable_attention_dp", "enable_autotuner", "enable_chunked_prefill", "enable_iter_perf_stats"}
    | {"enable_iter_req_stats", "enable_layerwise_nvtx_marker", "enable_lora", "enable_min_latency"}
    | {"env_overrides", "force_dynamic_quantization", "garbage_collection_gen0_threshold", "gpus_per_node"}
    | {"guided_decoding_backend", "iter_stats_max_iterations", "kv_cache_config", "kv_connector_config", "load_format"}
    | {
        "lora_config",
        "max_beam_width",
        "max_num_tokens",
        "mm_encoder_only",
        "model_kwargs",
        "moe_cluster_parallel_size",
    }
    | {"moe_config", "moe_expert_parallel_size", "moe_tensor_parallel_size", "num_postprocess_workers"}
    | {"nvfp4_gemm_config", "orchestrator_type", "otlp_traces_endpoint", "peft_cache_config"}
    | {"perf_metrics_max_requests", "pipeline_parallel_size", "postprocess_tokenizer_dir", "print_iter_log"}
    | {"request_stats_max_iterations", "return_perf_metrics", "revision", "sampler_type", "scheduler_config"}
    | {"sparse_attention_config", "speculative_config", "stream_interval", "tensor_parallel_size", "tokenizer"}
    | {"tokenizer_mode", "tokenizer_revision", "torch_compile_config", "trust_remote_code"}
)
"""Arguments of tensorrt_llm.LLM, of several versions; what the installed one lacks it says itself."""


@cache
def known_arguments(engine: str) -> frozenset[str]:
    """The keywords that an engine takes. Its module is read and not imported: it needs libraries that are elsewhere."""
    tree = ast.parse((ENGINES / f"{engine}.py").read_text())
    for definition in tree.body:
        if isinstance(definition, ast.ClassDef) and _name(definition) == engine:
            taken = next(
                node for node in definition.body if isinstance(node, ast.FunctionDef) and node.name == "__init__"
            ).args
            own = {argument.arg for argument in taken.kwonlyargs}
            return frozenset(own | (OF_TENSORRT_LLM if taken.kwarg is not None else set()))
    raise ValueError(f"{engine}.py has no engine of that name")


def _name(definition: ast.ClassDef) -> str | None:
    """What the class says that its engine is called: `name = "…"`."""
    for node in definition.body:
        match node:
            case ast.Assign(targets=[ast.Name(id="name")], value=ast.Constant(value=str(name))):
                return name
    return None
