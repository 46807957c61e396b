"""A stand-in for xgrammar: it compiles nothing, rejects `((`, and simulates slow, large and crashing compilations."""

from __future__ import annotations

import os
import signal


class TokenizerInfo:
    @staticmethod
    def from_huggingface(tokenizer: str) -> TokenizerInfo:
        assert tokenizer
        return TokenizerInfo()


class GrammarCompiler:
    def __init__(self, tokenizer_info: TokenizerInfo, *, max_threads: int, cache_enabled: bool) -> None:
        assert (max_threads, cache_enabled) == (1, False)

    def compile_builtin_json_grammar(self) -> None:
        """Succeed always."""

    def compile_json_schema(self, text: str) -> None:
        kept = []
        while "minItems" in text:
            kept.append(bytearray(2**20))

    def compile_regex(self, text: str) -> None:
        while text == "slow":
            pass
        if text == "crash":
            os.kill(os.getpid(), signal.SIGSEGV)
        if "((" in text:
            raise RuntimeError("Regex parsing error at position 2: the parenthesis is not closed")

    compile_grammar = compile_structural_tag = compile_regex
