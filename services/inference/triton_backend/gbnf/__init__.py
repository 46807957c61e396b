"""Translates GBNF, llama.cpp's notation of grammars, into llguidance's variant of Lark.

llama.cpp follows every reading of an ambiguous GBNF at once, so that one token can take minutes. llguidance bounds the
work per token (docs/adr/0014). Numbers and sizes are limited, so that parsing takes little time for any text.
"""
