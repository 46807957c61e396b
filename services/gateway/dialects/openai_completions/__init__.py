"""OpenAI's legacy completions: requests and responses."""
