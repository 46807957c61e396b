"""The languages of messages to callers."""
