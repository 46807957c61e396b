"""The workers: which there are, which one takes a call, and the calls to it."""
