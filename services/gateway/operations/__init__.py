"""What a request can ask for: a generation, a prompt or vectors. The pipeline runs each as an operation."""
