"""The HTTP gateway: OpenAI's API in front of the workers. It keeps no state and knows no model."""
