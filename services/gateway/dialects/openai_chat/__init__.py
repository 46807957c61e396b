"""OpenAI's chat completions: requests and responses."""
