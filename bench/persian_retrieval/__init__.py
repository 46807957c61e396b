"""Measures the cost of other spellings of Persian in a search by embeddings, and the gain of the unified one."""
