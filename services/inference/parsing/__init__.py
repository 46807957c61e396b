"""Reads the text that a model writes: reasoning, tool calls, stop strings."""
