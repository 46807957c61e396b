"""Finds the messages to callers that the services' modules write out."""

from __future__ import annotations

import ast
from pathlib import Path

from tests.support.repository import ROOT

SERVICES = ROOT / "services"
MAKERS = {
    "ApiError": 2,
    "Failure": 1,
    "RequestError": 1,
    "_rate_limit": 0,
    "_unsupported": 1,
    "bad_request": 1,
    "conflict": 0,
    "invalid": 1,
    "not_found": 0,
    "timed_out": 0,
    "too_large": 0,
    "unauthorized": 0,
    "unavailable": 0,
}
"""What makes a message to a caller, and which of its arguments is that."""
PARTS = {"_unobtainable": "7 {}; send the image as a data: URL", "_out_of_range": "7 is 7; it must be {}"}
"""What makes a message of its last argument."""
SENTENCE_ENDS = {
    "inference/request/image_header.py": "read",
    "inference/model/image_rule.py": "size",
    "inference/triton_backend/prompt_images.py": "",
}
"""Modules whose errors are put into a message, and the function whose callers see them, unless all do."""
NOT_FOR_CALLERS = ("Reason.INTERNAL", "Reason.ENGINE_FAILED", "'ENGINE_FAILED'")
"""Their callers are told a request id."""


def modules() -> list[Path]:
    services = ("gateway", "worker", "inference", "embeddings")
    return [path for service in services for path in SERVICES.glob(f"{service}/**/*.py") if "site" not in path.parts]


def written(path: Path) -> list[str]:
    """The messages that a module writes out, with 7 for each insertion."""
    return [text for node in ast.walk(ast.parse(path.read_text())) for text in of_node(node, path)]


def failures(path: Path) -> set[tuple[str, str]]:
    """The fields that a module refuses, each with what it says of it; 7 for each insertion."""
    found: set[tuple[str, str]] = set()
    for function in ast.walk(ast.parse(path.read_text())):
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            for node in ast.walk(function):
                match node:
                    case ast.Call(
                        func=ast.Name(id="invalid" | "_unsupported" | "Violation"), args=[field, message, *_]
                    ):
                        messages = possible(message, function)
                        found |= {(name, text) for name in possible(field, function) for text in messages}
    return found


def possible(node: ast.expr, function: ast.AST) -> list[str]:
    """What an expression may be, also where it is a name that its function has given to a text."""
    if not isinstance(node, ast.Name):
        return literals(node)
    texts: list[str] = []
    for assignment in ast.walk(function):
        match assignment:
            case ast.Assign(targets=[ast.Name(id=name)], value=value) if name == node.id:
                texts += literals(value)
    return texts


def of_node(node: ast.AST, path: Path) -> list[str]:
    module, found = path.relative_to(SERVICES).as_posix(), []
    match node:
        case ast.Call(func=ast.Name(id=maker), args=[*arguments]) if maker in MAKERS and len(arguments) > MAKERS[maker]:
            if ast.unparse(arguments[0]) not in NOT_FOR_CALLERS:
                found = literals(arguments[MAKERS[maker]])
        case ast.Call(func=ast.Name(id=maker), args=[*_, last]) if maker in PARTS:
            found = [PARTS[maker].format(text) for text in literals(last)]
        case ast.Assign(targets=[ast.Name(id="message")], value=value):
            found = literals(value)
        # Its other functions are about parameters, which the worker writes.
        case ast.FunctionDef(name="output_limit" | "refuse_unknown_tokens") if module.endswith("/contract.py"):
            found = raised(node, "_invalid")
        case ast.FunctionDef(name=name) if module in SENTENCE_ENDS and name.startswith(("_", SENTENCE_ENDS[module])):
            found = raised(node, "ValueError", "_UnreadableError")
        case ast.Dict(values=values) if "triton_backend" not in module:
            found = [text for value in values for text in literals(value) if "; " in text and text.count(" ") > 3]
    return [text for text in found if text not in [part.format("7") for part in PARTS.values()]]


def raised(function: ast.FunctionDef, *makers: str) -> list[str]:
    calls = [node for node in ast.walk(function) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)]
    return [text for call in calls if ast.unparse(call.func) in makers for text in literals(call.args[0])]


def literals(node: ast.expr) -> list[str]:
    """What an expression may be, if it is a text."""
    match node:
        case ast.Constant(value=str(text)):
            return [text]
        case ast.JoinedStr(values=values):
            return ["".join(str(part.value) if isinstance(part, ast.Constant) else "7" for part in values)]
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return [one + other for one in literals(left) for other in literals(right)]
        case ast.IfExp(body=body, orelse=orelse):
            return literals(body) + literals(orelse)
    return []
