"""OpenAI's embeddings: requests and answers."""
