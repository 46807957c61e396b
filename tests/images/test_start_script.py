"""The first process of the GPU images, as the first process of a PID namespace, with a stand-in for mpirun."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from services.stack import triton
from services.stack.ports import free_ports
from tests.support.repository import ROOT
from tests.support.requirement import unmet
from tests.support.waits import block_until

SCRIPT = ROOT / "docker" / "triton-start.sh"
SECONDS = 30
NAMESPACE = ("env", "--default-signal=INT", "unshare", "--pid", "--fork", "--kill-child", "--mount-proc")
"""A container's own numbering of processes: the script is number 1, and all others end with it.

Tests in the background may inherit that SIGINT is ignored.
"""

# Like Open MPI, it waits for everything that has its output, and exits with the status of its program.
MPIRUN = """#!{python}
import os, subprocess, sys
options = sys.argv[1:sys.argv.index("bash")]
program = sys.argv[len(options) + 1:]
job = {{"OMPI_COMM_WORLD_SIZE": "1", "JOB": " ".join(options)}}
rank = subprocess.Popen(program, env={{**os.environ, **job}}, stdout=subprocess.PIPE)
for line in rank.stdout:
    sys.stdout.buffer.write(line)
    sys.stdout.buffer.flush()
status = rank.wait()
sys.exit(128 - status if status < 0 else status)
"""
# A server that ends in order on SIGTERM, and leaves a process behind, as tritonserver does with a frozen stub.
SERVER = """#!{python}
import os, signal, subprocess, sys, time
def stop(*_):
    print("stopped in order", flush=True)
    sys.exit(0)
signal.signal(signal.SIGTERM, stop)
if "LEAVES" in os.environ:
    subprocess.Popen(["sleep", "1000"])
print("job", os.environ.get("JOB", "none"), "arguments", *sys.argv[1:], flush=True)
if "CRASHES" in os.environ:
    os.kill(os.getpid(), signal.SIGSEGV)
if "EXITS" in os.environ:
    sys.exit(int(os.environ["EXITS"]))
time.sleep(1000)
"""


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    directory = tmp_path / "bin"
    directory.mkdir()
    for name, text in (("mpirun", MPIRUN), ("tritonserver", SERVER), ("other-program", SERVER)):
        (directory / name).write_text(text.format(python=sys.executable))
        (directory / name).chmod(0o755)
    return directory


class Container:
    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process = process
        self._log = log

    @property
    def output(self) -> str:
        return self._log.read_text()

    def stop(self, number: int = signal.SIGTERM) -> None:
        """Send a signal to the first process, as a container engine does."""
        (first,) = psutil.Process(self.process.pid).children()
        first.send_signal(number)

    def wait(self) -> int:
        return self.process.wait(SECONDS)


@contextmanager
def container(tmp_path: Path, *arguments: str, path: Path, environment: Mapping[str, str]) -> Iterator[Container]:
    if subprocess.run([*NAMESPACE, "true"], capture_output=True, check=False).returncode:
        unmet("a PID namespace cannot be made here; run the tests as root")
    log = tmp_path / "log"
    variables = {"PATH": f"{path}:{os.environ['PATH']}", "HOME": str(tmp_path), "TMPDIR": str(tmp_path), **environment}
    with log.open("wb") as output:
        process = subprocess.Popen([*NAMESPACE, SCRIPT, *arguments], env=variables, stdout=output, stderr=output)
    try:
        yield Container(process, log)
    finally:
        process.kill()
        process.wait(SECONDS)


MPI = pytest.mark.parametrize("mpi", ["0", "1"])


@MPI
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_the_server_in_order(tmp_path: Path, programs: Path, mpi: str, number: signal.Signals) -> None:
    with container(tmp_path, "--flag", path=programs, environment={"VILIX_MPI": mpi}) as started:
        block_until(lambda: "arguments" in started.output, SECONDS)
        started.stop(number)
        assert started.wait() == 0
        assert "stopped in order" in started.output


@MPI
def test_what_the_server_leaves_behind_does_not_keep_the_container(tmp_path: Path, programs: Path, mpi: str) -> None:
    environment = {"VILIX_MPI": mpi, "LEAVES": "1"}
    with container(tmp_path, "--flag", path=programs, environment=environment) as started:
        block_until(lambda: "arguments" in started.output, SECONDS)
        started.stop()
        assert started.wait() == 0
        assert "stopped in order" in started.output


@MPI
@pytest.mark.parametrize(("environment", "status"), [({"EXITS": "7"}, 7), ({"CRASHES": "1"}, 139)])
def test_the_end_of_the_server_ends_the_container(
    tmp_path: Path, programs: Path, mpi: str, environment: dict[str, str], status: int
) -> None:
    with container(tmp_path, path=programs, environment={"VILIX_MPI": mpi, **environment}) as started:
        assert started.wait() == status


@MPI
def test_a_server_that_crashes_beside_others_ends_the_container(tmp_path: Path, programs: Path, mpi: str) -> None:
    environment = {"VILIX_MPI": mpi, "CRASHES": "1", "LEAVES": "1"}
    with container(tmp_path, path=programs, environment=environment) as started:
        assert started.wait() != 0


@pytest.mark.parametrize(("mpi", "job"), [("0", "none"), ("1", "-n 1 --bind-to none --oversubscribe")])
def test_the_server_is_the_one_rank_of_an_mpi_job_if_there_is_to_be_one(
    tmp_path: Path, programs: Path, mpi: str, job: str
) -> None:
    environment = {"VILIX_MPI": mpi, "EXITS": "0"}
    with container(tmp_path, "--model-repository=/m", path=programs, environment=environment) as started:
        assert started.wait() == 0
        assert f"job {job}" in started.output
        assert "arguments --model-repository=/m --http-restricted-api=" in started.output


def test_another_program_runs_in_place_of_the_server(tmp_path: Path, programs: Path) -> None:
    with container(tmp_path, "other-program", "a b", path=programs, environment={"EXITS": "3"}) as started:
        assert started.wait() == 3
        assert "arguments a b\n" in started.output


def test_tritons_own_interfaces_are_locked(tmp_path: Path) -> None:
    """With the real Triton: only what the worker and the probes use is left."""
    server = tmp_path / "triton"
    triton.install(server)
    (tmp_path / "models").mkdir()
    http, grpc, metrics = free_ports(3)
    arguments, environment = triton.command(
        directory=server,
        repository=tmp_path / "models",
        http_port=http,
        grpc_port=grpc,
        metrics_port=metrics,
    )
    own = [argument for argument in arguments[1:] if "-restricted-" not in argument]
    environment |= {"VILIX_MPI": "0", "PATH": f"{server}:{environment['PATH']}"}

    def status(path: str) -> int:
        address = f"http://127.0.0.1:{http}/v2/{path}"
        request = urllib.request.Request(address, b"{}" if "index" in path else None)  # http only
        try:
            with urllib.request.urlopen(request, timeout=SECONDS) as answer:  # noqa: S310  # as above
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return int(error.code)
        except OSError:
            return 0

    with container(tmp_path, "tritonserver", *own, path=server, environment=environment) as started:
        block_until(lambda: status("health/ready") == 200 or started.process.poll() is not None, SECONDS)
        assert status("health/ready") == 200, started.output
        assert status("systemsharedmemory/status") == 403
        assert status("repository/index") == 403
        started.stop()
        assert started.wait() == 0
