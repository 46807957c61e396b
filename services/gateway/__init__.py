"""The HTTP gateway: the APIs of OpenAI and Anthropic in front of the workers. It keeps no state and knows no model."""
