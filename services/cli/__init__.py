"""The `vilix` command: one module per subcommand."""

import os

# `vilix up` calls its processes over gRPC while it starts others. gRPC's fork support would log a message at every
# start, and the started processes do not use the parent's gRPC.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
