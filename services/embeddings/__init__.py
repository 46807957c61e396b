"""The embeddings worker."""
