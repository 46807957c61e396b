"""The embedding model that Triton runs: one contract, several engines.

This package is copied into Triton's model repository and imports nothing of the rest of the distribution.
"""
