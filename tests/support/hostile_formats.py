"""Generate structured-output requests that may harm an engine: schemas, regular expressions, grammars and choices.

Half of them mutate published material (the JSON Schema Test Suite) and grammars like those in manuals. The other half
come from families that are known to make parsers recurse, automata explode or allocations grow. The same seed and suite
generate the same cases.
"""

from __future__ import annotations

import copy
import json
import tarfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any, Final, NamedTuple

MAX_SUITE_FILE_BYTES: Final = 1_000_000
NUMBERS: Final = (
    -1, 0, 1, 2, 3, 10, 100, 1_000, 10_000, 65_536, 1_000_000, 10**9, 2**31 - 1, 2**31, 2**53 + 1, 2**63 - 1, 2**63,
    2**64 - 1, 2**64, 10**30, -(2**31), -(2**63), 0.1, 1.5, 1e-40, 5e-324, 1e308, -1e308, 1e-9,
)  # fmt: skip
COUNTING_KEYWORDS: Final = (
    "minItems", "maxItems", "minLength", "maxLength", "minProperties", "maxProperties", "minContains", "maxContains",
)  # fmt: skip
RANGE_KEYWORDS: Final = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")
KINDS: Final = ("schema", "tool", "regex", "choice", "gbnf", "lark", "structural_tag")


class Case(NamedTuple):
    """One request: `fields` are merged into a chat request, and `label` names the family in reports."""

    label: str
    fields: dict[str, Any]


def load_suite(archive: Path) -> list[Any]:
    """Read the schemas of the JSON Schema Test Suite from the source archive of the package `jsonschema`.

    Args:
        archive: A `.tar.gz` whose members `*/json/tests/**/*.json` are lists of groups with a `schema` each.

    Returns:
        The schemas in the order of their file names.
    """
    schemas = []
    with tarfile.open(archive) as files:
        members = (member for member in files if "/json/tests/" in member.name and member.name.endswith(".json"))
        for member in sorted(members, key=lambda member: member.name):
            content = files.extractfile(member) if member.size <= MAX_SUITE_FILE_BYTES else None
            if content is not None:
                schemas += [group["schema"] for group in json.load(content)]
    return schemas


def cases(seed: int, suite: Sequence[Any]) -> Iterator[Case]:
    """Generate cases endlessly. The kinds take turns, so that a short run tries all of them."""
    random = Random(seed)
    while True:
        for kind in KINDS:
            yield _MAKERS[kind](random, suite)


def _schema_case(random: Random, suite: Sequence[Any]) -> Case:
    label, schema = _schema(random, suite)
    form = {"type": "json_schema", "json_schema": {"name": "hostile", "schema": schema}}
    if random.random() < 0.2:
        return Case(f"schema by structured_outputs: {label}", {"structured_outputs": {"json": schema}})
    return Case(f"schema: {label}", {"response_format": form})


def _tool_case(random: Random, suite: Sequence[Any]) -> Case:
    tools = []
    labels = []
    for number in range(random.choice((1, 1, 2, 20))):
        label, schema = _schema(random, suite)
        labels.append(label)
        if not isinstance(schema, dict) or schema.get("type") != "object":
            schema = {"type": "object", "properties": {"a": schema}}
        tools.append({"type": "function", "function": {"name": f"f{number}", "parameters": schema, "strict": True}})
    choice: Any = random.choice(("required", {"type": "function", "function": {"name": "f0"}}))
    return Case(f"tool: {labels[0]}", {"tools": tools, "tool_choice": choice})


def _regex_case(random: Random, suite: Sequence[Any]) -> Case:
    label, regex = _regex(random)
    fields = random.choice(({"structured_outputs": {"regex": regex}}, {"guided_regex": regex}))
    return Case(f"regex: {label}", fields)


def _choice_case(random: Random, suite: Sequence[Any]) -> Case:
    count = random.choice((1, 2, 100, 256, 257, 5_000))
    make = random.choice(
        (
            lambda i: "a" * i or "b",
            lambda i: f"{'x' * 60}{i}",
            lambda i: "سلام\u200cها" + str(i),
            lambda i: random.choice(("\0", "\\", "(((", "]", "\x7f", "😀")) * 9,
            lambda i: "same",
            lambda i: "é" * 2_000 + str(i),
        )
    )  # fmt: skip
    return Case("choice", {"structured_outputs": {"choice": [make(i) for i in range(count)]}})


def _gbnf_case(random: Random, suite: Sequence[Any]) -> Case:
    label, grammar = _gbnf(random)
    return Case(f"GBNF: {label}", {"structured_outputs": {"grammar": grammar}})


def _lark_case(random: Random, suite: Sequence[Any]) -> Case:
    label, grammar = _lark(random, suite)
    return Case(f"Lark: {label}", {"structured_outputs": {"grammar": grammar}})


def _structural_tag_case(random: Random, suite: Sequence[Any]) -> Case:
    label, schema = _schema(random, suite)
    tag = {"begin": "<f>", "schema": schema, "end": "</f>"}
    value = {"type": "structural_tag", "structures": [tag] * random.choice((1, 3, 500)), "triggers": ["<f"]}
    return Case(f"structural tag: {label}", {"response_format": value})


_MAKERS: Final[dict[str, Callable[[Random, Sequence[Any]], Case]]] = {
    "schema": _schema_case,
    "tool": _tool_case,
    "regex": _regex_case,
    "choice": _choice_case,
    "gbnf": _gbnf_case,
    "lark": _lark_case,
    "structural_tag": _structural_tag_case,
}


# JSON Schema


def _schema(random: Random, suite: Sequence[Any]) -> tuple[str, Any]:
    if suite and random.random() < 0.5:
        schema = copy.deepcopy(random.choice(suite))
        for _ in range(random.randint(1, 4)):
            schema = _mutated_schema(random, schema)
        return "mutated suite", schema
    family = random.choice(tuple(_SCHEMA_FAMILIES))
    schema = _SCHEMA_FAMILIES[family](random, _size(random))
    if random.random() < 0.3:
        schema = _mutated_schema(random, schema)
    return family, schema


def _size(random: Random) -> int:
    """Return a size from 1 to about 30,000, distributed evenly on a logarithmic scale."""
    return int(10 ** random.uniform(0, 4.5))


def _subschemas(schema: Any) -> list[dict[str, Any]]:
    found, waiting = [], [schema]
    while waiting and len(found) < 500:
        value = waiting.pop()
        if isinstance(value, dict):
            found.append(value)
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value
    return found


def _mutated_schema(random: Random, schema: Any) -> Any:
    places = _subschemas(schema)
    if not places:
        return {"type": "array", "items": schema}
    place = random.choice(places)
    match random.randrange(9):
        case 0:
            place[random.choice(COUNTING_KEYWORDS)] = random.choice(NUMBERS)
        case 1:
            place[random.choice(RANGE_KEYWORDS)] = random.choice(NUMBERS)
        case 2:
            place["pattern"] = _regex(random)[1]
            place.setdefault("type", "string")
        case 3:
            place["$ref"] = random.choice(
                ("#", "#/$defs/a", "#/properties/a", "#/" + "a/" * 200, "http://localhost:9/x")
            )
        case 4:
            other = copy.deepcopy(random.choice(places))
            place[random.choice(("anyOf", "allOf", "oneOf", "prefixItems"))] = [other] * random.choice((1, 2, 8, 40))
        case 5:
            numbers = [key for key, value in place.items() if isinstance(value, int | float)]
            if numbers:
                place[random.choice(numbers)] = random.choice(NUMBERS)
        case 6:
            return {"type": "array", "items": schema, "minItems": random.choice(NUMBERS)}
        case 7:
            return {"type": "object", "properties": {"a": schema, "b": schema}, "required": ["a", "b", "c"]}
        case _:
            place[random.choice(("not", "if", "then", "else", "contains", "propertyNames", "items"))] = random.choice(
                (True, False, {}, None, 1, "x", copy.deepcopy(random.choice(places)))
            )
    return schema


def _nested(random: Random, size: int, wrap: Callable[[Any], Any], leaf: Any) -> Any:
    schema = leaf
    for _ in range(min(size, 200)):
        schema = wrap(schema)
    return schema


def _counted(random: Random, size: int) -> Any:
    keyword = random.choice(COUNTING_KEYWORDS)
    kind = "array" if "Items" in keyword or "Contains" in keyword else "string" if "Length" in keyword else "object"
    extra: dict[str, Any] = {"items": {"type": "integer"}} if kind == "array" else {}
    return {"type": kind, keyword: random.choice(NUMBERS), **extra}


def _product(random: Random, size: int) -> Any:
    """Return nested arrays whose counts multiply."""
    count = random.choice((10, 100, 1_000, 9_999))
    wrap = lambda inner: {"type": "array", "items": inner, "minItems": count, "maxItems": count}  # noqa: E731
    return _nested(random, random.randint(2, 6), wrap, {"type": "string", "minLength": count})


def _reference_chain(random: Random, size: int) -> Any:
    definitions: dict[str, Any] = {f"d{i}": {"$ref": f"#/$defs/d{i + 1}"} for i in range(size)}
    end = random.choice(({"type": "integer"}, {"$ref": "#/$defs/d0"}))
    return {"$defs": {**definitions, f"d{size}": end}, "$ref": "#/$defs/d0"}


def _doubling(random: Random, size: int) -> Any:
    """Return definitions that each refer to the next one twice, which expands to 2^n."""
    keyword = random.choice(("allOf", "anyOf", "oneOf", "prefixItems"))
    depth = min(size, 300)
    definitions: dict[str, Any] = {f"d{i}": {keyword: [{"$ref": f"#/$defs/d{i + 1}"}] * 2} for i in range(depth)}
    return {"$defs": {**definitions, f"d{depth}": {"type": "string"}}, "$ref": "#/$defs/d0"}


def _wide_object(random: Random, size: int) -> Any:
    names = [f"p{i}" for i in range(min(size, 3_000))]
    value = random.choice(({"type": "string"}, {"pattern": "^(a|b)*c{1,50}$", "type": "string"}, {"enum": [1, "a"]}))
    required = random.choice(([], names, names[::-1], names[: len(names) // 2]))
    return {"type": "object", "properties": dict.fromkeys(names, value), "required": required}


def _wide_enum(random: Random, size: int) -> Any:
    make = random.choice((str, lambda i: "a" * (i % 300), lambda i: {"a": [i]}, lambda i: i * 1e300))
    return {"enum": [make(i) for i in range(size)]}


def _conditionals(random: Random, size: int) -> Any:
    def condition(i: int) -> Any:
        return {
            "if": {"properties": {f"a{i}": {"const": i}}},
            "then": {"required": [f"b{i}"]},
            "else": {"not": {"required": [f"c{i}"]}},
        }

    return {"type": "object", "allOf": [condition(i) for i in range(min(size, 400))]}


def _intersections(random: Random, size: int) -> Any:
    """Return several patterns that must all match, whose automata are multiplied."""
    patterns = [f"^(.{{{i}}}a|[^b]*c)*.{{0,{i + 2}}}$" for i in range(2, 2 + min(size, 30))]
    return {"type": "string", "allOf": [{"pattern": pattern} for pattern in patterns]}


_SCHEMA_FAMILIES: Final[dict[str, Callable[[Random, int], Any]]] = {
    "counts": _counted,
    "product of counts": _product,
    "ranges": lambda random, size: {
        "type": random.choice(("integer", "number")),
        **{key: random.choice(NUMBERS) for key in random.sample(RANGE_KEYWORDS, 3)},
    },
    "nested arrays": lambda random, size: _nested(random, size, lambda s: {"type": "array", "items": s}, True),
    "nested objects": lambda random, size: _nested(
        random, size, lambda s: {"type": "object", "properties": {"a": s}, "required": ["a"]}, {"type": "null"}
    ),
    "nested anyOf": lambda random, size: _nested(random, min(size, 14), lambda s: {"anyOf": [s, s]}, {"const": 1}),
    "chain of references": lambda random, size: _reference_chain(random, min(size, 3_000)),
    "doubling references": _doubling,
    "cycle": lambda random, size: {"anyOf": [{"$ref": "#"}, {"type": "array", "items": {"$ref": "#"}}]},
    "wide object": _wide_object,
    "wide enum": _wide_enum,
    "conditionals": _conditionals,
    "intersections": _intersections,
    "pattern": lambda random, size: {"type": "string", "pattern": _regex(random)[1]},
    "patterned properties": lambda random, size: {
        "type": "object",
        "patternProperties": {_regex(random)[1]: {"type": "integer"} for _ in range(min(size, 20))},
        "additionalProperties": random.choice((True, False, {"type": "object"})),
    },
    "long constant": lambda random, size: {"const": random.choice(("a", "é", "\0", '"')) * size},
    "long tuple": lambda random, size: {
        "type": "array",
        "prefixItems": [{"type": "integer"}] * min(size, 3_000),
        "minItems": random.choice(NUMBERS),
    },
    "unknown format": lambda random, size: {
        "type": "string",
        "format": random.choice(("date-time", "uuid", "x" * size)),
    },
    "options of the compiler": lambda random, size: {
        "x-guidance": {
            "whitespace_pattern": _regex(random)[1],
            "item_separator": "(,| )" * min(size, 500),
            "key_separator": ":" * min(size, 500),
            "whitespace_flexible": random.choice((True, False, 1, "x")),
        },
        "type": "object",
    },
}


# Regular expressions


def _regex(random: Random) -> tuple[str, str]:
    family = random.choice(tuple(_REGEX_FAMILIES))
    return family, _REGEX_FAMILIES[family](random, _size(random))


def _random_regex(random: Random, depth: int) -> str:
    if depth <= 0:
        return random.choice(
            ("a", ".", r"\w", r"\d", r"\s", "[a-z]", "[^a]", r"[\u0600-\u06FF]", r"\p{L}", "é", "😀", r"\b", "^", "$",
             r"\1", r"\x00", r"\uD800", "[z-a]", "[]",
             "(?=a)", "(?!b)", "(?<=c)", "(?i)a", r"\Q", r"\z", "[[:alpha:]]", "[a&&b]")
        )  # fmt: skip
    parts = [_random_regex(random, depth - 1 - random.randrange(2)) for _ in range(random.randint(1, 3))]
    whole = random.choice(("", "|")).join(parts)
    return random.choice(("({})", "(?:{})", "{}", "(?P<n>{})")).format(whole) + _repetition(random)


def _repetition(random: Random) -> str:
    least, most = random.choice(NUMBERS), random.choice(NUMBERS)
    return random.choice(
        ("", "*", "+", "?", "*?", "++", "{2}", "{1,3}", f"{{{least}}}", f"{{{least},}}", f"{{{least},{most}}}",
         f"{{,{most}}}")
    )  # fmt: skip


_REGEX_FAMILIES: Final[dict[str, Callable[[Random, int], str]]] = {
    "random": lambda random, size: _random_regex(random, random.randint(1, 5)),
    "one repetition": lambda random, size: random.choice(("a", ".", r"\w", "[^x]", "(ab|c)")) + _repetition(random),
    "nested repetitions": lambda random, size: _wrapped(
        "a", _counted_group(random.choice((2, 10, 100, 1_000, 10_000))), min(size, 9)
    ),
    "nested groups": lambda random, size: "(" * size + "a" + ")" * size,
    "nested stars": lambda random, size: _wrapped("a", "({})*", min(size, 2_000)),
    "alternatives": lambda random, size: "|".join("a" * (i % 80) + "b" for i in range(min(size, 3_000))),
    "counting back": lambda random, size: f"(a|b)*a(a|b){{{min(size, 2_000)}}}",
    "large classes": lambda random, size: r"(\p{L}|\p{N}|[^\x00-\x7f])" * min(size, 300) + "{1,100}",
    "optional many": lambda random, size: "a?" * min(size, 1_500) + "a" * min(size, 1_500),
}


def _counted_group(most: int) -> str:
    return "({}){{1," + str(most) + "}}"


def _wrapped(text: str, template: str, times: int) -> str:
    for _ in range(times):
        text = template.format(text)
    return text


# Grammars


_BOOK_GRAMMARS: Final = (
    'root ::= (expr "=" ws term "\\n")+\nexpr ::= term ([-+*/] term)*\nterm ::= ident | num | "(" ws expr ")" ws\n'
    "ident ::= [a-z] [a-z0-9_]* ws\nnum ::= [0-9]+ ws\nws ::= [ \\t\\n]*\n",
    'root ::= "[" ws (value ("," ws value)*)? "]" ws\nvalue ::= root | string\nstring ::= '
    '"\\"" ([^"\\\\\\x7F\\x00-\\x1F] | "\\\\" (["\\\\bfnrt] | "u" [0-9a-fA-F]{4}))* "\\"" ws\nws ::= | " "\n',
    'root ::= item+\nitem ::= "- " [^\\r\\n\\x0b\\x0c\\x85\\u2028\\u2029]+ "\\n"\n',
    'root ::= move (" " move){0,9}\nmove ::= [a-h] [1-8] | "O-O" "-O"? # castling\n',
)
"""Grammars like those in manuals: arithmetic, JSON, a list, chess moves."""


def _gbnf(random: Random) -> tuple[str, str]:
    if random.random() < 0.3:
        return "mutated book grammar", _mutated_text(random, random.choice(_BOOK_GRAMMARS))
    family = random.choice(tuple(_GBNF_FAMILIES))
    return family, _GBNF_FAMILIES[family](random, _size(random))


def _mutated_text(random: Random, text: str) -> str:
    pieces = (
        "{5,2}", "{1000000}", "{,}", "{2,}", "((((", "))))", "|", "*", "+*?", "[z-a]", "[]", "[^]", ".", '""', "root",
        "::=", "\\x", "\\U0010ffff", "[^\\x00-\\U0010ffff]", "<[1]>", "<|im_end|>", "!<[7]>", "\n", "#", "\0", "é",
        "missing",
    )  # fmt: skip
    for _ in range(random.randint(1, 5)):
        place = random.randrange(len(text) + 1)
        match random.randrange(3):
            case 0:
                text = text[:place] + random.choice(pieces) * random.choice((1, 1, 2, 50)) + text[place:]
            case 1:
                text = text[:place] + text[place + random.randint(1, 9) :]
            case _:
                start = random.randrange(len(text) + 1)
                text = text[:place] + text[start : start + random.randint(1, 60)] + text[place:]
    return text


def _random_gbnf(random: Random, size: int) -> str:
    names = [f"r{i}" for i in range(random.randint(1, 8))]

    def item(depth: int) -> str:
        simple = ('"a"', "[a-z ]", "[^x]", ".", random.choice(names), '"é"', "[\\u0600-\\u06ff]", '""')
        inner = random.choice(simple) if depth == 0 else f"({body(depth - 1)})"
        return inner + random.choice(
            ("", "", "*", "+", "?", f"{{{random.choice(NUMBERS)},{random.choice(NUMBERS)}}}", "{2}")
        )

    def body(depth: int) -> str:
        options = [
            " ".join(item(depth - random.randint(0, depth)) for _ in range(random.randint(0, 4))) for _ in range(3)
        ]
        return " | ".join(options[: random.randint(1, 3)])

    return "".join(f"{name} ::= {body(2)}\n" for name in ("root", *names))


_GBNF_FAMILIES: Final[dict[str, Callable[[Random, int], str]]] = {
    "random": _random_gbnf,
    "repetition": lambda random, size: f'root ::= "a"{{{random.choice(NUMBERS)},{random.choice(NUMBERS)}}}',
    "nested repetitions": lambda random, size: (
        "root ::= " + _wrapped('"a"', _counted_group(random.choice((10, 1_000))), min(size, 9))
    ),
    "parentheses": lambda random, size: "root ::= " + "(" * size + '"a"' + ")" * size,
    "stars in a row": lambda random, size: "root ::= " + "[a-zA-Z ,.]* " * min(size, 2_000),
    "nested stars": lambda random, size: "root ::= " + _wrapped("[a-z ]", "({})+", min(size, 500)),
    "ambiguous": lambda random, size: "root ::= s\ns ::= [a-zA-Z ,.!?]" + " s?" * min(size, 9) + " | [a-zA-Z ,.!?]",
    "chain of rules": lambda random, size: (
        "root ::= r0\n"
        + "".join(f"r{i} ::= r{i + 1}\n" for i in range(min(size, 4_000)))
        + f'r{min(size, 4_000)} ::= "a"'
    ),
    "left recursion": lambda random, size: 'root ::= root "a" | root root | "a"',
    "alternatives": lambda random, size: "root ::= " + " | ".join(f'"{i}"' for i in range(min(size, 5_000))),
    "empty loops": lambda random, size: 'root ::= (("")* | x*)* "a"\nx ::= "" | x',
    "endless": lambda random, size: "root ::= x\nx ::= x",
    "no root": lambda random, size: 'start ::= "a"',
}


def _lark(random: Random, suite: Sequence[Any]) -> tuple[str, str]:
    family = random.choice(tuple(_LARK_FAMILIES))
    grammar = "%llguidance {}\n" + _LARK_FAMILIES[family](random, _size(random), suite)
    if random.random() < 0.25:
        return f"mutated {family}", _mutated_text(random, grammar)
    return family, grammar


_LARK_FAMILIES: Final[dict[str, Callable[[Random, int, Sequence[Any]], str]]] = {
    "chain of rules": lambda random, size, suite: (
        "start: r0\n" + "".join(f"r{i}: r{i + 1}\n" for i in range(min(size, 4_000))) + f'r{min(size, 4_000)}: "a"'
    ),
    "chain of terminals": lambda random, size, suite: (
        "start: T0\n" + "".join(f"T{i}: T{i + 1}\n" for i in range(min(size, 4_000))) + f'T{min(size, 4_000)}: "a"'
    ),
    "repetition": lambda random, size, suite: f'start: "a"{{{random.choice(NUMBERS)},{random.choice(NUMBERS)}}}',
    "parentheses": lambda random, size, suite: "start: " + "(" * size + '"a"' + ")" * size,
    "nested JSON": lambda random, size, suite: "start: %json " + json.dumps(_schema(random, suite)[1]),
    "nested regex": lambda random, size, suite: "start: T\nT: /" + _regex(random)[1].replace("/", r"\/") + "/",
    "nested Lark": lambda random, size, suite: (
        "start: %lark {\n" * min(size, 50) + 'start: "a"\n' + "}\n" * min(size, 50)
    ),
    "intersections": lambda random, size, suite: (
        "start: T\nT: " + " & ".join(f"/(.{{{i}}}a|[^b]*)*c?/" for i in range(1, 1 + min(size, 40)))
    ),
    "complements": lambda random, size, suite: "start: T\nT: " + _wrapped("/(a|b)*a(a|b){12}/", "~({})", min(size, 60)),
    "ambiguous": lambda random, size, suite: "start: s\ns: /[a-zA-Z ,.!?]/" + " s?" * min(size, 9) + " | /[a-z ]/",
    "attributes": lambda random, size, suite: (
        f"start: a b\na[max_tokens={random.choice(NUMBERS)}, temperature={random.choice(NUMBERS)}]: /.*/\n"
        f'b[stop="{"x" * min(size, 500)}", lazy]: /.*/'
    ),
    "tokens": lambda random, size, suite: (
        f"start: <[{random.choice(NUMBERS)}-{random.choice(NUMBERS)}]> <|im_end|> <[^0]>"
    ),
    "alternatives": lambda random, size, suite: "start: " + " | ".join(f'"{i}"' for i in range(min(size, 5_000))),
    "left recursion": lambda random, size, suite: 'start: start "a" | start start | "a"',
    "options": lambda random, size, suite: (
        '%llguidance {"no_forcing": true, "allow_initial_skip": 1, "x": [[]]}\nstart: "a"'
    ),
}


def is_longer(value: Any, length: int) -> bool:
    """Whether the JSON text of `value` is certainly longer than `length`. Shared parts count as often as they occur."""
    waiting = [value]
    while waiting and length >= 0:
        part = waiting.pop()
        if isinstance(part, dict):
            length -= sum(map(len, part)) + 2
            waiting.extend(part.values())
        elif isinstance(part, list):
            length -= len(part) + 1
            waiting.extend(part)
        else:
            length -= len(part) if isinstance(part, str) else 1
    return length < 0
