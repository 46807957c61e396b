"""Generates choices: requests to the engine, and events of their answers."""
