"""Checks a request, and renders it into a prompt and the engine's parameters."""
