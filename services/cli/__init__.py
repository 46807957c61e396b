"""The `vilix` command: one module per subcommand."""

import os

# `vilix up` asks its processes over gRPC, and starts others meanwhile: gRPC has nothing to do in those, and says so each time.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
