"""The inference worker: everything that knows a language model."""
