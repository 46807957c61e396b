"""OpenAI's chat completions: requests and answers."""
