"""Stands for llguidance where it cannot be imported."""

raise ImportError("the stand-in has no llguidance")
