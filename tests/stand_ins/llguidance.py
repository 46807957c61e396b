"""A stand-in for llguidance that cannot be imported."""

raise ImportError("the stand-in has no llguidance")
