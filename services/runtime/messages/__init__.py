"""Texts for callers: messages by id, and a catalogue of texts for each language."""
