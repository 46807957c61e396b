"""Benchmarks."""

import os

# As in services/cli: a forked process that is about to run another program must not start threads of gRPC.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
