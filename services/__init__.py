"""The services of Vilix, and what they share."""

import os

# gRPC writes a line to standard error whenever a peer closes a connection with an error, as a worker does that is
# stopped with requests running: "chttp2_transport.cc … Got goaway". Callers handle that, and gRPC's lines are neither
# for people nor in the format of our logs. gRPC reads the variable when it is imported.
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
