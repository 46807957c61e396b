"""The work that a request asks for: a generation, a prompt or vectors. The pipeline runs each as an operation."""
