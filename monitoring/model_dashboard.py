"""The dashboard of one model."""

from __future__ import annotations

from typing import Final

from monitoring.panels import Dashboard, Panel, Query, Row, Variable
from monitoring.queries import MODEL, NAMESPACE, NAMESPACES, SHARE, latency, quantiles, rate

MODELS: Final = Variable("model", f"label_values(vilix_model_available{{{NAMESPACE}}}, model)", "Model")


def model() -> Dashboard:
    """Return the dashboard of one model."""
    per_model = "model"
    return Dashboard(
        "model",
        "Vilix / Model",
        [
            Row(
                "Latency",
                [
                    latency("First token", "vilix_first_token_seconds", "From the arrival of the request."),
                    latency(
                        "Each further token", "vilix_inter_token_seconds", "Tokens that come together share the time."
                    ),
                    latency("Whole call of the worker", "vilix_worker_call_duration_seconds", "Also of embeddings."),
                ],
            ),
            Row(
                "Where the time goes",
                [
                    latency("Admission", "vilix_admission_duration_seconds", "Redis, and the queue of the key."),
                    latency("Queue of the engine", "vilix_engine_queue_duration_seconds", "Waiting for a slot."),
                    latency("Prefill", "vilix_engine_prefill_duration_seconds", "The engine reads the prompt."),
                    latency("Decoding", "vilix_engine_decode_duration_seconds", "The engine generates tokens."),
                    latency(
                        "First token in the worker", "vilix_worker_first_token_seconds", "From the call of the worker."
                    ),
                    latency(
                        "Embedding", "vilix_embeddings_request_duration_seconds", "Whole calls of embedding models."
                    ),
                ],
            ),
            Row(
                "Tokens",
                [
                    Panel(
                        "Tokens per second",
                        [
                            Query(rate("vilix_tokens_total", "kind", MODEL), "{{kind}}"),
                            Query(rate("vilix_cached_tokens_total", "", MODEL), "cached"),
                            Query(rate("vilix_reasoning_tokens_total", "", MODEL), "reasoning"),
                        ],
                    ),
                    Panel("Tokens of prompts", quantiles("vilix_request_prompt_tokens"), description="By generation."),
                    Panel(
                        "Tokens of completions",
                        quantiles("vilix_request_completion_tokens"),
                        description="By generation.",
                    ),
                    Panel(
                        "Prompt tokens from the prefix cache",
                        [
                            Query(
                                f"{rate('vilix_cached_tokens_total', per_model, MODEL)} / "
                                + rate("vilix_tokens_total", per_model, f'{MODEL}, kind="prompt"'),
                                "{{model}}",
                            )
                        ],
                        SHARE,
                    ),
                ],
            ),
            Row(
                "Engine",
                [
                    Panel(
                        "Running, waiting, slots",
                        [
                            Query(f"sum (vilix_engine_in_flight{{{MODEL}}})", "running"),
                            Query(f"sum (vilix_engine_queued{{{MODEL}}})", "waiting"),
                            Query(f"sum (vilix_engine_slots{{{MODEL}}})", "slots"),
                        ],
                    ),
                    Panel(
                        "KV cache in use",
                        [
                            Query(
                                f"max by (model, instance) (vilix_engine_kv_cache_used_ratio{{{MODEL}}})",
                                "{{instance}}",
                            )
                        ],
                        SHARE,
                    ),
                    Panel(
                        "Tokens of each engine per second",
                        [Query(rate("vilix_engine_generated_tokens_total", "instance", MODEL), "{{instance}}")],
                    ),
                    Panel(
                        "Failures and starts",
                        [
                            Query(
                                f"sum by (instance, cause) (increase(vilix_engine_failures_total{{{MODEL}}}[1h]))",
                                "{{instance}} {{cause}}",
                            ),
                            Query(
                                f"sum by (instance) (increase(vilix_engine_starts_total{{{MODEL}}}[1h]))",
                                "{{instance}} started",
                            ),
                        ],
                        description="Within the last hour.",
                    ),
                    Panel(
                        "Cancelled requests, slow steps",
                        [
                            Query(rate("vilix_engine_cancelled_requests_total", "", MODEL), "cancelled"),
                            Query(rate("vilix_engine_slow_steps_total", "", MODEL), "steps over 1 s"),
                        ],
                    ),
                    Panel(
                        "Load of embedding engines",
                        [
                            Query(f"max by (model) (vilix_embeddings_load_ratio{{{MODEL}}})", "{{model}}"),
                        ],
                        SHARE,
                    ),
                ],
            ),
            Row(
                "Ends",
                [
                    Panel(
                        "Generations by outcome",
                        [Query(rate("vilix_generations_total", "outcome", MODEL), "{{outcome}}")],
                        "reqps",
                    ),
                    Panel(
                        "Moved to another worker",
                        [Query(rate("vilix_retries_total", per_model, MODEL), "{{model}}")],
                        "reqps",
                    ),
                    Panel(
                        "Embeddings by outcome",
                        [Query(rate("vilix_embeddings_total", "outcome", MODEL), "{{outcome}}")],
                        "reqps",
                    ),
                ],
            ),
        ],
        [NAMESPACES, MODELS],
    )
