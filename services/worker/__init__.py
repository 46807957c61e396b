"""What both kinds of workers share: the gRPC server and the client of Triton."""
