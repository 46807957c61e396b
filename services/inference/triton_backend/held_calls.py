"""Calls that an engine holds to their schemas, as a structured output of the engine's library.

The text consists of calls, each a JSON object between two tags, and of free text around them. If the request has a
structured output too, the whole text is either calls or the structured output.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

from services.inference.triton_backend.contract import STRUCTURED_OUTPUT, Calls, Request, StructuredOutput, invalid
from services.inference.triton_backend.gbnf.grammar import GbnfError
from services.inference.triton_backend.gbnf.lark import Translation, is_lark, translate
from services.worker.triton_kit.request_error import RequestError

_COMPACT: Final = {"whitespace_flexible": False}
_SPACED: Final = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
"""Options of llguidance for the white space in JSON."""
_ANY_OBJECT: Final = '{"type":"object"}'
Notation = Callable[[Calls, StructuredOutput | None], StructuredOutput]


def with_calls(request: Request, notation: Notation | None) -> Request:
    """Return a request whose calls and structured output are one structured output in the `notation` of an engine."""
    params = request.params
    if params.calls is None or notation is None:
        return request
    names = params.names - {"calls"} | {"structured_output"}
    output = notation(params.calls, params.structured_output)
    return replace(request, params=replace(params, calls=None, structured_output=output, names=names))


def as_lark(calls: Calls, otherwise: StructuredOutput | None) -> StructuredOutput:
    """Return a grammar for llguidance.

    Free text is a lazy rule that ends with the opening tag: from there on, only a call can follow.
    """
    opening, closing = json.dumps(calls.opening), json.dumps(calls.closing)
    # Models are trained on calls with a space behind colons and commas. Any pattern for white space could be repeated.
    rules = [
        f"compact: %json {_with_options(calls.schema, _COMPACT)}",
        f"spaced: %json {_with_options(calls.schema, _SPACED)}",
        f'rest: "\\n"? (compact | spaced) "\\n"? {closing}',
    ]
    if otherwise is None:
        free = r"(.|\n)*"
        more = "*" if calls.parallel else "?"
        rules += [
            f"start: (opening rest){more} tail",
            f"opening[lazy]: /{free}{_regex_literal(calls.opening)}/",
            "tail: TAIL",
            f"TAIL: /{free}/",
        ]
    else:
        further = '("\\n" call)*' if calls.parallel else ""
        grammar = _grammar_of(otherwise)
        # A terminal of several characters would exclude shorter ones with which it begins.
        begin = " ".join(json.dumps(character) for character in calls.opening) if grammar.is_recursive else opening
        rules += [
            "start: calls | otherwise",
            f"calls: call {further}",
            f"call: {begin} rest",
            f"otherwise: {grammar.root}",
            *grammar.rules,
        ]
    return StructuredOutput("grammar", "\n".join(["%llguidance {}", *rules, ""]))


def as_structural_tag(calls: Calls, otherwise: StructuredOutput | None) -> StructuredOutput:
    """Return a structural tag for xgrammar (0.1.25 and newer)."""
    tag = {
        "type": "tag",
        "begin": f"{calls.opening}\n",
        "content": {"type": "json_schema", "json_schema": json.loads(calls.schema)},
        "end": f"\n{calls.closing}",
    }
    once = {"stop_after_first": not calls.parallel}
    form: dict[str, Any]
    if otherwise is None:
        form = {"type": "triggered_tags", "triggers": [calls.opening], "tags": [tag], **once}
    else:
        several = {"type": "tags_with_separator", "tags": [tag], "separator": "\n", "at_least_one": True, **once}
        form = {"type": "or", "elements": [several, _tag_of(otherwise)]}
    return StructuredOutput("structural_tag", json.dumps({"type": "structural_tag", "format": form}))


def schemas_of(kind: str, text: str) -> list[tuple[bool, Any]]:
    """Return the JSON Schemas in a structured output, each with whether it is the schema of calls."""
    if kind == "json":
        return [(False, json.loads(text))]
    if kind == "grammar":
        rules = (
            line.partition(": %json ") for line in text.splitlines() if line.startswith(("compact: ", "otherwise: "))
        )
        return [(name == "compact", _without_options(json.loads(schema))) for name, found, schema in rules if found]
    if kind == "structural_tag":
        form = json.loads(text).get("format", {})
        elements = form.get("elements", [form])
        tags = [tag["content"] for element in elements for tag in element.get("tags", [])]
        forms = [element for element in elements if "tags" not in element]
        return [
            (is_call, content["json_schema"])
            for is_call, contents in ((True, tags), (False, forms))
            for content in contents
            if "json_schema" in content
        ]
    return []


def _with_options(text: str, options: Mapping[str, Any]) -> str:
    schema = json.loads(text)
    return json.dumps({"x-guidance": options, **schema} if isinstance(schema, dict) else schema)


def _without_options(schema: Any) -> Any:
    return {key: value for key, value in schema.items() if key != "x-guidance"} if isinstance(schema, dict) else schema


def _grammar_of(output: StructuredOutput) -> Translation:
    """Return the rules of a structured output in Lark. Raises RequestError for one that cannot be combined."""
    if output.kind == "grammar" and not is_lark(output.text):
        try:
            return translate(output.text)
        except GbnfError as error:
            raise RequestError(
                "INVALID_ARGUMENT", error.message_id, **{"field": STRUCTURED_OUTPUT, **error.parameters}
            ) from None
    if output.kind == "regex":
        return Translation(f"/{_escaped(output.text)}/", (), is_recursive=False)
    return Translation(f"%json {_with_options(_schema(output), _COMPACT)}", (), is_recursive=False)


def _tag_of(output: StructuredOutput) -> dict[str, Any]:
    if output.kind == "regex":
        return {"type": "regex", "pattern": output.text}
    if output.kind == "grammar" and not is_lark(output.text):
        return {"type": "grammar", "grammar": output.text}
    return {"type": "json_schema", "json_schema": json.loads(_schema(output))}


def _schema(output: StructuredOutput) -> str:
    if output.kind not in ("json", "json_object"):
        raise invalid(f"calls cannot be combined with a structured output of the kind {output.kind}")
    return output.text or _ANY_OBJECT


def _regex_literal(text: str) -> str:
    return "".join(character if character.isalnum() else f"\\x{ord(character):02x}" for character in text)


def _escaped(pattern: str) -> str:
    """Return a regular expression as it is written between slashes."""
    escaped, is_escape = "", False
    for character in pattern:
        if character == "/" and not is_escape:
            escaped += "\\/"
        else:
            # A line break ends the rule.
            escaped += ("n" if is_escape else "\\n") if character == "\n" else character
        is_escape = character == "\\" and not is_escape
    return escaped
