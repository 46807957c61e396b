class RequestError(RuntimeError):
    """One request failed; the engine continues."""
