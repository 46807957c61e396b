"""A soak test: mixed traffic for half an hour shows that no process leaks memory, files, threads or Redis keys."""
