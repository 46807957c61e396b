"""The embedding model that Triton runs: one contract, several engines.

This package is copied into Triton's model repository with `services.worker.triton_kit`, and imports nothing else of the
distribution.
"""
