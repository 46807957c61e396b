"""Code that both workers share: the process's life, the gRPC server, catalog files, and the client of Triton."""
