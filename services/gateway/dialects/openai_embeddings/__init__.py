"""OpenAI's embeddings: requests and responses."""
