"""Build all images, push them, and write their digests as values of the chart: `make images REGISTRY=registry/path`.

Each image gets an SBOM and a provenance attestation, which BuildKit makes and attaches in the registry.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import tomllib
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Image:
    """One image that is built."""

    name: str
    dockerfile: str
    base: str
    """The base image; its digest is looked up, unless it is passed."""
    base_argument: str
    target: str = ""
    values: str = ""
    """The key of the chart's `images` that the image is for. The CPU image serves two, in the demo."""


PYTHON = "docker.io/library/python:3.11-slim-bookworm"
TRITON = "nvcr.io/nvidia/tritonserver:26.07-trtllm-python-py3"
TRITON_VLLM = "nvcr.io/nvidia/tritonserver:26.11-vllm-python-py3"
IMAGES = (
    Image("gateway", "services", PYTHON, "PYTHON", target="gateway", values="gateway"),
    Image("worker", "services", PYTHON, "PYTHON", target="worker", values="worker"),
    Image("triton", "triton", TRITON, "TRITON", values="triton"),
    Image("triton-vllm", "triton-vllm", TRITON_VLLM, "TRITON_VLLM", values="tritonVllm"),
    Image("cpu", "cpu", PYTHON, "PYTHON"),
)


def version() -> str:
    """Return the version of the product, which is the tag of the images."""
    return str(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"])


def base_digest(base: str) -> str:
    """Return the digest of a base image in its registry."""
    command = ["docker", "buildx", "imagetools", "inspect", base, "--format", "{{.Manifest.Digest}}"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def publish(image: Image, registry: str, base: str, digest: str, arguments: list[str]) -> str:
    """Build and push an image, and return its digest."""
    with tempfile.TemporaryDirectory() as directory:
        metadata = Path(directory) / "metadata.json"
        command = ["docker", "buildx", "build", "--push", "--sbom=true", "--provenance=mode=max"]
        command += ["--file", f"docker/{image.dockerfile}.Dockerfile", "--tag", f"{registry}/{image.name}:{version()}"]
        command += ["--build-arg", f"{image.base_argument}={base}"]
        command += ["--build-arg", f"{image.base_argument}_DIGEST={digest}"]
        command += ["--target", image.target] if image.target else []
        command += [part for argument in arguments for part in ("--build-arg", argument)]
        subprocess.run([*command, "--metadata-file", str(metadata), "."], cwd=ROOT, check=True)
        return str(json.loads(metadata.read_text())["containerimage.digest"])


def main() -> None:
    """Publish the images that were asked for, and print values with their digests."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("registry", help="where to push, such as registry.example.com/vilix")
    parser.add_argument("--only", nargs="*", choices=[image.name for image in IMAGES], help="only these images")
    parser.add_argument("--python", default=PYTHON, help="base of the gateway, the worker and the CPU image")
    parser.add_argument("--triton", default=TRITON, help="base of the GPU image with TensorRT-LLM")
    parser.add_argument("--triton-vllm", default=TRITON_VLLM, help="base of the GPU image with vLLM")
    parser.add_argument("--digest", nargs="*", default=[], help="BASE=sha256:…: a digest that you have reviewed")
    parser.add_argument("--build-arg", nargs="*", default=[], help="NAME=VALUE, such as PIP_INDEX_URL=…")
    options = parser.parse_args()
    bases = {"PYTHON": options.python, "TRITON": options.triton, "TRITON_VLLM": options.triton_vllm}
    digests = dict(pair.split("=", 1) for pair in options.digest)
    values: dict[str, dict[str, str]] = {}
    for image in IMAGES:
        if options.only and image.name not in options.only:
            continue
        base = bases[image.base_argument]
        if base not in digests:
            digests[base] = base_digest(base)
        digest = publish(image, options.registry, base, digests[base], options.build_arg)
        print(f"{options.registry}/{image.name}@{digest}", file=sys.stderr)
        if image.values:
            values[image.values] = {"repository": f"{options.registry}/{image.name}", "digest": digest}
    print("# Written by make images: helm install … -f images.yaml")
    print(json.dumps({"images": values}, indent=2))


if __name__ == "__main__":
    main()
