"""Generated files for operators: the reference of the metrics."""
