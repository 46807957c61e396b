"""What both workers share: the process's life, the gRPC server, the catalog's files, and the client of Triton."""
