"""JSON Schemas that may harm an engine."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from random import Random
from typing import Any, Final

from tests.support.hostile_structured_output.numbers import NUMBERS, random_size
from tests.support.hostile_structured_output.regexes import hostile_regex

COUNTING_KEYWORDS: Final = (
    "minItems", "maxItems", "minLength", "maxLength", "minProperties", "maxProperties", "minContains", "maxContains",
)  # fmt: skip

RANGE_KEYWORDS: Final = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")


def hostile_schema(random: Random, suite: Sequence[Any]) -> tuple[str, Any]:
    """Return the name of a family and a schema: a mutated one of the suite, or one of the family."""
    if suite and random.random() < 0.5:
        schema = copy.deepcopy(random.choice(suite))
        for _ in range(random.randint(1, 4)):
            schema = _mutated_schema(random, schema)
        return "mutated suite", schema
    family = random.choice(tuple(_SCHEMA_FAMILIES))
    schema = _SCHEMA_FAMILIES[family](random, random_size(random))
    if random.random() < 0.3:
        schema = _mutated_schema(random, schema)
    return family, schema


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
            place["pattern"] = hostile_regex(random)[1]
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
    "pattern": lambda random, size: {"type": "string", "pattern": hostile_regex(random)[1]},
    "patterned properties": lambda random, size: {
        "type": "object",
        "patternProperties": {hostile_regex(random)[1]: {"type": "integer"} for _ in range(min(size, 20))},
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
            "whitespace_pattern": hostile_regex(random)[1],
            "item_separator": "(,| )" * min(size, 500),
            "key_separator": ":" * min(size, 500),
            "whitespace_flexible": random.choice((True, False, 1, "x")),
        },
        "type": "object",
    },
}
