"""Triton's model repository, rendered for Helm's init container and the local stack."""
