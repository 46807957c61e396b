"""What requests ask for: an answer, a prompt, vectors. Each is an operation that the pipeline runs, whatever the API."""
