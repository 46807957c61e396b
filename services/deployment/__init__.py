"""Renders the model repository for Helm's init container and the local stack."""
