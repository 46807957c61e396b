"""The Dockerfiles and their steps, checked without a container engine."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path

import pytest

from services.inference.model.catalog import DIRECTORY, load_model
from tests.support.helm import containers, environment, find, program, template
from tests.support.repository import ROOT

DOCKERFILES = sorted((ROOT / "docker").glob("*.Dockerfile"))
UV = Path(sys.executable).with_name("uv")


def instructions(dockerfile: Path) -> list[tuple[str, str]]:
    """Return the instructions and their arguments, with continued lines joined."""
    text = re.sub(r"\\\n\s*", " ", dockerfile.read_text())
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [(word.upper(), rest.strip()) for word, _, rest in (line.partition(" ") for line in lines)]


def is_sent(path: str) -> bool:
    """Whether .dockerignore keeps a path of the repository in the build context: the last matching pattern decides."""
    sent = True
    for pattern in (ROOT / ".dockerignore").read_text().splitlines():
        if not pattern or pattern.startswith("#"):
            continue
        bare = pattern.removeprefix("!")
        parts = Path(path).parts
        prefixes = ["/".join(parts[: count + 1]) for count in range(len(parts))]
        names = parts if bare.startswith("**/") else ()
        if any(fnmatch(prefix, bare) for prefix in prefixes) or bare.removeprefix("**/") in names:
            sent = pattern.startswith("!")
    return sent


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.stem)
def test_hadolint_reports_nothing(dockerfile: Path) -> None:
    check = subprocess.run([program("hadolint"), dockerfile], capture_output=True, text=True, timeout=60, check=False)
    assert check.returncode == 0, check.stdout


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.stem)
def test_copied_files_exist_and_are_in_the_build_context(dockerfile: Path) -> None:
    for word, rest in instructions(dockerfile):
        if word == "COPY" and not rest.startswith("--from"):
            *sources, _ = rest.split()
            for source in sources:
                assert (ROOT / source).exists(), source
                assert is_sent(source), f".dockerignore excludes {source}"


def test_the_build_context_contains_nothing_else() -> None:
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split(
        "\n"
    )
    sent = {path.split("/")[0] for path in tracked if path and is_sent(path)}
    assert [path for path in tracked if path.startswith("docker/") and is_sent(path)] == ["docker/triton-start.sh"]
    assert sent == {"docker", "LICENSE", "NOTICE", "README.md", "proto", "pyproject.toml", "requirements", "services"}
    secrets = (".git/config", ".run/api-key", ".cache/models/m/model.gguf", ".venv/bin/python", ".env")
    for path in (*secrets, "services/a/__pycache__/b.pyc"):
        assert not is_sent(path), path


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.stem)
def test_bases_are_pinned_by_digest_and_images_do_not_run_as_root(dockerfile: Path) -> None:
    stages: dict[str, list[tuple[str, str]]] = {}
    name = ""
    for word, rest in instructions(dockerfile):
        if word == "FROM":
            base, *alias = rest.split(" AS ")
            assert base in stages or re.fullmatch(r"\$\{(\w+)\}@\$\{\1_DIGEST\}", base), base
            name = alias[0] if alias else "last"
            stages[name] = list(stages.get(base, ()))
        elif name:
            stages[name].append((word, rest))
    shipped = ["gateway", "worker"] if "gateway" in stages else ["last"]
    for stage in shipped:
        users = [rest for word, rest in stages[stage] if word == "USER"]
        assert users == ["10001:10001"], stage
        assert not [
            rest
            for word, rest in stages[stage]
            if word == "RUN"
            and "install" in rest
            and "--no-cache" not in rest
            and "rm -rf /var/lib/apt/lists" not in rest
        ]


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.stem)
def test_only_locked_packages_are_installed(dockerfile: Path) -> None:
    for word, rest in instructions(dockerfile):
        if word != "RUN":
            continue
        for command in re.split(r"&&|\(|\)", rest):
            if re.search(r"pip (install|sync)", command):
                assert "--require-hashes" in command or ("--no-deps" in command and "/wheels/" in command), command


@pytest.mark.parametrize(
    ("name", "silence"),
    [
        ("triton", "TRTLLM_NO_USAGE_STATS=1"),
        ("triton-next", "TRTLLM_NO_USAGE_STATS=1"),
        ("triton-vllm", "VLLM_NO_USAGE_STATS=1"),
        ("triton-vllm", "HF_HUB_DISABLE_TELEMETRY=1"),
    ],
)
def test_the_gpu_images_start_with_our_script_and_report_nothing_to_others(name: str, silence: str) -> None:
    parts = instructions(ROOT / "docker" / f"{name}.Dockerfile")
    assert ("COPY", "docker/triton-start.sh /usr/local/bin/vilix-start") in parts
    assert parts[-1] == ("ENTRYPOINT", '["/opt/nvidia/nvidia_entrypoint.sh", "/usr/local/bin/vilix-start"]')
    variables = {variable for word, rest in parts if word == "ENV" for variable in rest.split()}
    assert {silence, "DO_NOT_TRACK=1"} <= variables
    assert os.access(ROOT / "docker" / "triton-start.sh", os.X_OK)


def test_the_image_with_vllm_has_a_version_that_runs_the_models() -> None:
    text = (ROOT / "docker" / "triton-vllm.Dockerfile").read_text()
    (least,) = re.findall(r"^ARG VLLM_AT_LEAST=(\S+)$", text, re.MULTILINE)
    required = {
        engine.arguments["requires"]
        for path in DIRECTORY.glob("*.yaml")
        for engine in load_model(path.stem).alternatives
        if engine.name == "vllm"
    }
    assert required == {f">={least}"}


@pytest.mark.parametrize(
    ("installed", "builds"),
    [
        ("0.27.1+b1082979.nv26.8.62699174", False),
        ("0.9.2", False),
        ("0.30.0+a.nv26.9", True),
        ("0.30.0", True),
        ("0.100.0", True),
    ],
)
def test_an_image_whose_vllm_is_too_old_is_not_built(tmp_path: Path, installed: str, builds: bool) -> None:
    parts = instructions(ROOT / "docker" / "triton-vllm.Dockerfile")
    (least,) = (rest for word, rest in parts if word == "ARG" and rest.startswith("VLLM_AT_LEAST="))
    (step,) = (rest for word, rest in parts if word == "RUN")
    for name, text in (("python3", f"echo {installed}"), ("useradd", "exit 0")):
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    variables = dict([least.split("=")]) | {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    run = subprocess.run(["/bin/sh", "-c", step], env=variables, capture_output=True, timeout=60, check=False)
    assert (run.returncode == 0) == builds


def test_user_and_ports_agree_with_the_chart() -> None:
    manifests = template("values-cpu-demo")
    gateway = find(manifests, "Deployment", "vilix-gateway")["spec"]["template"]["spec"]
    assert f"{gateway['securityContext']['runAsUser']}:{gateway['securityContext']['runAsGroup']}" == "10001:10001"
    pool = containers(find(manifests, "Deployment", "vilix-smollm2-135m"))
    for name, dockerfile in (
        ("worker", "services"),
        ("triton", "triton"),
        ("triton", "triton-next"),
        ("triton", "triton-vllm"),
        ("worker", "cpu"),
        ("triton", "cpu"),
    ):
        text = (ROOT / "docker" / f"{dockerfile}.Dockerfile").read_text()
        exposed = {int(port) for line in re.findall(r"^EXPOSE (.*)$", text, re.MULTILINE) for port in line.split()}
        assert {port["containerPort"] for port in pool[name]["ports"]} <= exposed
    assert "/opt/vilix/weights/smollm2-135m" in environment(pool["worker"])["VILIX_MODELS"]
    assert "/opt/vilix " in (ROOT / "docker" / "cpu.Dockerfile").read_text()


@pytest.fixture(scope="session")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("wheels")
    for source in (ROOT, ROOT / "proto"):
        command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", directory]
        subprocess.run(command, cwd=source, check=True, capture_output=True, timeout=120)
    return directory


def installed(requirements: str, wheels: Path, directory: Path) -> Path:
    """Install the packages of an image by the steps of its Dockerfile. Return the environment's bin directory."""
    quiet = {**os.environ, "UV_PYTHON_DOWNLOADS": "never"}
    steps = [
        ["venv", "--python", sys.executable, directory],
        [
            "pip",
            "sync",
            "--require-hashes",
            "--python",
            directory / "bin" / "python",
            ROOT / "requirements" / requirements,
        ],
        ["pip", "install", "--no-deps", "--python", directory / "bin" / "python", *sorted(wheels.glob("*.whl"))],
    ]
    for step in steps:
        run = subprocess.run([UV, *step], env=quiet, capture_output=True, text=True, timeout=300, check=False)
        assert run.returncode == 0, run.stderr
    return directory / "bin"


@pytest.fixture(scope="session")
def binaries(tmp_path_factory: pytest.TempPathFactory, wheels: Path) -> dict[str, Path]:
    return {
        image: installed(f"{image}.txt", wheels, tmp_path_factory.mktemp(image) / "venv")
        for image in ("gateway", "worker", "cpu")
    }


@pytest.mark.parametrize(
    ("image", "command"),
    [
        ("gateway", "python -m services.gateway --help"),
        ("gateway", "vilix keys create --help"),
        ("worker", "python -m services.inference --help"),
        ("worker", "python -m services.inference.weights.weights_download --help"),
        ("worker", "vilix --help"),
        ("cpu", "python -m services.gateway --help"),
        ("cpu", "python -m services.inference --help"),
        ("cpu", "vilix up --help"),
    ],
)
def test_entry_points_start_from_wheels_alone(
    binaries: dict[str, Path], image: str, command: str, tmp_path: Path
) -> None:
    name, *arguments = shlex.split(command)
    run = subprocess.run(
        [binaries[image] / name, *arguments],
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert run.returncode == 0, run.stderr


def test_the_locks_include_all_declared_dependencies(binaries: dict[str, Path]) -> None:
    """An extra that is not in the lock would be missing in the image."""
    for image in ("gateway", "worker"):
        check = subprocess.run(
            [UV, "pip", "check", "--python", binaries[image] / "python"],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert check.returncode == 0, check.stderr


def test_images_have_the_tested_versions() -> None:
    def pins(name: str) -> set[str]:
        return set(re.findall(r"^(\S+==\S+)", (ROOT / "requirements" / f"{name}.txt").read_text(), re.MULTILINE))

    for name in ("gateway", "worker", "cpu", "build"):
        assert pins(name) <= pins("local") | pins("uv"), f"requirements/{name}.txt is out of date; run make lock"
