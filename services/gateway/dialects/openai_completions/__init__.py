"""OpenAI's legacy completions: requests and answers."""
