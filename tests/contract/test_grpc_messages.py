"""gRPC's own lines do not get into the logs of the services and onto the terminal."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading

from tests.support.repository import ROOT

CLIENT = """
import services, sys, grpc
with grpc.insecure_channel(sys.argv[1]) as channel:
    try:
        channel.unary_unary("/service/Method")(b"", timeout=2)
    except grpc.RpcError:
        print("failed")
"""
PREFACE_BYTES = 24
SETTINGS = b"\0\0\0\4\0\0\0\0\0"
INTERNAL_ERROR = 2


def close_with_an_error(listener: socket.socket, closed: threading.Event) -> None:
    """Answer connections as a server does that is stopped with calls running: with GOAWAY (RFC 9113, section 6.8)."""
    debug_data = b"Cancelling all calls"
    payload = (0).to_bytes(4, "big") + INTERNAL_ERROR.to_bytes(4, "big") + debug_data
    goaway = len(payload).to_bytes(3, "big") + b"\7\0\0\0\0\0" + payload
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        with connection:
            connection.recv(PREFACE_BYTES)
            connection.sendall(SETTINGS)
            connection.recv(1000)
            connection.sendall(goaway)
            closed.set()


def test_a_peer_that_closes_a_connection_with_an_error_leaves_no_line_of_grpc() -> None:
    variables = {name: value for name, value in os.environ.items() if name != "GRPC_VERBOSITY"}
    closed = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=close_with_an_error, args=(listener, closed), daemon=True).start()
        port = listener.getsockname()[1]
        argv = [sys.executable, "-c", CLIENT, f"127.0.0.1:{port}"]
        result = subprocess.run(argv, cwd=ROOT, env=variables, capture_output=True, text=True, timeout=60, check=False)
        listener.shutdown(socket.SHUT_RDWR)
    assert closed.is_set()
    assert result.stdout == "failed\n"
    assert result.stderr == ""
