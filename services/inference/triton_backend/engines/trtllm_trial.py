"""Compiles structured outputs for trial with the library of TensorRT-LLM's guided decoding, and a model's tokenizer.

It was written from the libraries' documentation and tested with stand-ins; it has not run in NVIDIA's image yet.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Mapping
from typing import Any

from services.inference.triton_backend.contract import STRUCTURED_OUTPUT
from services.inference.triton_backend.faulty_part import located
from services.worker.triton_kit.request_error import RequestError


def prepare(arguments: Mapping[str, Any]) -> Callable[[str, str], None]:
    """Return the function that compiles with the library `backend` for the checkpoint in the directory `model`."""
    tokenizer = importlib.import_module("transformers").AutoTokenizer.from_pretrained(arguments["model"])
    compilers = {"xgrammar": _xgrammar, "llguidance": _llguidance}
    compile_structured_output = compilers[arguments["backend"]](tokenizer)

    def compiles(schema: str) -> bool:
        try:
            compile_structured_output("json", schema)
        except MemoryError:
            raise
        except Exception:  # noqa: BLE001 - libraries raise anything
            return False
        return True

    def compile_or_reject(kind: str, text: str) -> None:
        try:
            compile_structured_output(kind, text)
        except MemoryError:
            raise
        except Exception as error:  # noqa: BLE001 - libraries raise anything for an invalid structured output
            with contextlib.suppress(ValueError, AttributeError, LookupError):
                if found := located(kind, text, compiles):
                    raise found from None
            reason = "".join(str(error).strip().splitlines()[:1])[:200]
            raise RequestError(
                "INVALID_ARGUMENT", "structured_output_not_valid", field=STRUCTURED_OUTPUT, reason=reason
            ) from None

    # The first structured output prepares the vocabulary, which every trial inherits.
    compile_structured_output("json_object", "")
    return compile_or_reject


def _xgrammar(tokenizer: Any) -> Callable[[str, str], None]:
    xgrammar = importlib.import_module("xgrammar")
    # One thread, because the process forks.
    compiler = xgrammar.GrammarCompiler(
        xgrammar.TokenizerInfo.from_huggingface(tokenizer), max_threads=1, cache_enabled=False
    )

    def compile_structured_output(kind: str, text: str) -> None:
        if kind == "json_object":
            compiler.compile_builtin_json_grammar()
        else:
            names = {"json": "json_schema", "regex": "regex", "grammar": "grammar", "structural_tag": "structural_tag"}
            getattr(compiler, f"compile_{names[kind]}")(text)

    return compile_structured_output


def _llguidance(tokenizer: Any) -> Callable[[str, str], None]:
    llguidance = importlib.import_module("llguidance")
    vocabulary = importlib.import_module("llguidance.hf").from_tokenizer(tokenizer)

    def compile_structured_output(kind: str, text: str) -> None:
        make = {
            "json": "grammar_from_json_schema",
            "json_object": "grammar_from_json_schema",
            "regex": "grammar_from_regex",
            "grammar": "grammar_from_lark",
        }[kind]
        grammar = getattr(llguidance.LLMatcher, make)(text or '{"type": "object"}')
        problem = llguidance.LLMatcher(vocabulary, grammar).get_error()
        if problem:
            raise ValueError(problem)

    return compile_structured_output
