"""Checks requests, and renders them into prompts and parameters of the engine."""
