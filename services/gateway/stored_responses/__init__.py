"""Responses that are kept in Redis for the keys that made them: their objects, their inputs and their events."""
