"""Compiles structured outputs for trial as vLLM does, with the same library and a checkpoint's tokenizer.

vLLM itself is not imported: that takes half a minute, and starts threads, with which forking is not safe.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Mapping
from typing import Any

from services.inference.triton_backend.contract import STRUCTURED_OUTPUT, StructuredOutput
from services.inference.triton_backend.engines.vllm_structured_output import ANY_OBJECT, translated
from services.inference.triton_backend.faulty_part import located
from services.worker.triton_kit.request_error import RequestError

_Compile = Callable[[str, str], None]


def prepare(arguments: Mapping[str, Any]) -> _Compile:
    """Return the function that compiles with vLLM's `backend` for the checkpoint in the directory `model`."""
    tokenizer = importlib.import_module("transformers").AutoTokenizer.from_pretrained(arguments["model"])
    backend, vocabulary = arguments["backend"], arguments["vocabulary"]
    has_white_space = not arguments["disable_any_whitespace"]
    make = {"guidance": _guidance, "xgrammar": _xgrammar}[backend]
    compile_structured_output = make(tokenizer, vocabulary, has_white_space)

    def compiles(schema: str) -> bool:
        try:
            compile_structured_output("json", schema)
        except MemoryError:
            raise
        except Exception:  # noqa: BLE001 - libraries raise anything
            return False
        return True

    def compile_or_reject(kind: str, text: str) -> None:
        output = translated(StructuredOutput(kind, text), backend)
        try:
            compile_structured_output(output.kind, output.text)
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


def _guidance(tokenizer: Any, vocabulary: int, has_white_space: bool) -> _Compile:
    llguidance = importlib.import_module("llguidance")
    matcher = llguidance.LLMatcher
    table = importlib.import_module("llguidance.hf").from_tokenizer(tokenizer, max(vocabulary, len(tokenizer)))

    def compile_structured_output(kind: str, text: str) -> None:
        if kind in ("json", "json_object"):
            grammar = matcher.grammar_from_json_schema(
                text or ANY_OBJECT, defaults={"whitespace_flexible": has_white_space}
            )
        else:
            grammar = llguidance.grammar_from(kind, text)
        # vLLM checks without a tokenizer first, and then makes a matcher with one.
        problem = matcher.validate_grammar(grammar, None) or matcher(table, grammar, log_level=0).get_error()
        if problem:
            raise ValueError(problem)

    return compile_structured_output


def _xgrammar(tokenizer: Any, vocabulary: int, has_white_space: bool) -> _Compile:
    xgrammar = importlib.import_module("xgrammar")
    # One thread, because the process forks.
    compiler = xgrammar.GrammarCompiler(
        xgrammar.TokenizerInfo.from_huggingface(tokenizer, vocab_size=vocabulary), max_threads=1, cache_enabled=False
    )

    def compile_structured_output(kind: str, text: str) -> None:
        if kind in ("json", "json_object"):
            compiler.compile_json_schema(text or ANY_OBJECT, any_whitespace=has_white_space)
        else:
            getattr(compiler, f"compile_{kind}")(text)

    return compile_structured_output
