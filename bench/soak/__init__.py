"""A soak test: mixed traffic for half an hour, and proof that nothing grows."""
