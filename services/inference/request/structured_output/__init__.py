"""Structured output: checks of its schemas, regular expressions and grammars, and its form for the engine."""
