"""Generates the choices of a request: requests to the engine, and the events made of its outputs."""
