"""Downloads weights, and writes Triton's model repository."""
