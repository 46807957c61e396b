"""Limits on the numbers and sizes in schemas, regular expressions and grammars that callers send.

They hold for every engine. Each check reads its text once, from left to right, and raises Failure that names the part
at fault, its value and the limit.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from decimal import Decimal
from typing import Any, Final
from urllib.parse import unquote

from services.inference.triton_backend import gbnf
from services.runtime.failure import Failure, invalid

MAX_COUNT: Final = 10_000
"""The most that minItems, maxItems, minProperties, maxProperties, minContains, maxContains and repetitions may say."""
MAX_STRING: Final = 100_000
"""Of minLength and maxLength."""
MAX_NUMBER: Final = 2.0**64
"""Of minimum, maximum and their exclusive kinds, in either direction."""
LEAST_NUMBER: Final = 1e-20
"""Nearest to 0 that a bound other than 0 may be."""
MAX_MULTIPLE: Final = 10_000
"""Of multipleOf without its decimal point and the zeros at its ends, as 25 for 0.25 or 2500."""
MAX_DECIMALS: Final = 15
"""Digits of multipleOf before or behind the decimal point."""
MAX_ENTRIES: Final = 4_096
"""Of enum and required."""
MAX_ALTERNATIVES: Final = 512
"""Of anyOf, oneOf, allOf, prefixItems and of what a structural tag lists."""
MAX_PROPERTIES: Final = 2_048
MAX_REFERENCE_HOPS: Final = 64
MAX_PATTERN_LENGTH: Final = 4_096
MAX_PRODUCT: Final = 1_000_000
"""Of repetitions inside one another, multiplied."""
MAX_GROUPS: Final = 64
"""Of groups inside one another."""
MAX_BRANCHES: Final = 4_096
"""Of alternatives in a regular expression."""
MAX_LARK_RULES: Final = 500
MAX_LARK_CHAIN: Final = 256
"""Of rules of a Lark grammar that refer to one another."""

_COUNTS: Final = frozenset({"minItems", "maxItems", "minProperties", "maxProperties", "minContains", "maxContains"})
_LENGTHS: Final = frozenset({"minLength", "maxLength"})
_BOUNDS: Final = frozenset({"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"})
_LISTS: Final = {
    **dict.fromkeys(("enum", "required"), MAX_ENTRIES),
    **dict.fromkeys(("anyOf", "oneOf", "allOf", "prefixItems", "items"), MAX_ALTERNATIVES),
}
_DATA: Final = frozenset({"const", "enum", "default", "examples", "required"})
"""What stands there is no schema."""
_BY_NAME: Final = frozenset(
    {"properties", "patternProperties", "$defs", "definitions", "dependentSchemas", "dependencies"}
)
"""Their keys are names."""
_LONGEST_INDEX: Final = 10
_PLAIN_KEY: Final = re.compile(r"[A-Za-z_$][A-Za-z0-9_$-]{0,63}")
_REPETITION: Final = re.compile(r"\{\s*(?P<least>[0-9]*)\s*(?:(?P<comma>,)\s*(?P<most>[0-9]*)\s*)?\}")
_GAP: Final = r"(?:\s|//[^\n]*+|\#[^\n]*+)*+"
"""White space and comments of Lark. It never backtracks, so that no text takes long."""
_TILDE: Final = re.compile(
    rf"~{_GAP}(?P<least>[0-9]+)(?:{_GAP}(?P<comma>\.\.){_GAP}(?P<most>[0-9]+))?",
)


def check_schema(field: str, schema: Any, *, at: str = "$") -> None:
    """Raise Failure if a number or a size in a JSON Schema exceeds its limit. `at` is the path of the schema."""
    waiting: list[tuple[str, Any]] = [(at, schema)]
    seen: set[int] = set()
    while waiting:
        path, value = waiting.pop()
        if isinstance(value, list):
            waiting += [(f"{path}[{index}]", entry) for index, entry in enumerate(value)]
        elif isinstance(value, dict) and id(value) not in seen:
            seen.add(id(value))
            # A reference makes a schema of what it leads to, also where that is data, such as a default value.
            waiting += _target(schema, value.get("$ref"), at)
            for key, inner in value.items():
                inner_path = path + _step(key)
                if key in _BY_NAME and isinstance(inner, dict):
                    _at_most(field, inner_path, len(inner), MAX_PROPERTIES, unit=" entries")
                    if key == "patternProperties":
                        for pattern in inner:
                            check_regex(field, pattern, at=inner_path + _step(pattern))
                    waiting += [(inner_path + _step(name), entry) for name, entry in inner.items()]
                else:
                    _check_keyword(field, inner_path, key, inner)
                    if key not in _DATA:
                        waiting.append((inner_path, inner))
    _check_references(field, schema, at)


def check_structural_tag(field: str, tag: Any) -> None:
    """Raise Failure for a schema, a regular expression or a grammar in a structural tag that is beyond a limit."""
    waiting: list[tuple[str, Any]] = [("$", tag)]
    while waiting:
        path, value = waiting.pop()
        if isinstance(value, list):
            _at_most(field, path, len(value), MAX_ALTERNATIVES, unit=" entries")
            waiting += [(f"{path}[{index}]", entry) for index, entry in enumerate(value)]
        elif isinstance(value, dict):
            for key, inner in value.items():
                inner_path = path + _step(key)
                if key in ("schema", "json_schema"):
                    check_schema(field, inner, at=inner_path)
                elif key in ("pattern", "regex") and isinstance(inner, str):
                    check_regex(field, inner, at=inner_path)
                elif key == "grammar" and isinstance(inner, str):
                    check_grammar(field, inner)
                else:
                    waiting.append((inner_path, inner))


def check_regex(field: str, text: str, *, at: str = "") -> None:
    """Raise Failure for a regular expression whose repetitions, groups or alternatives are beyond a limit.

    `at` is where it stands in a schema or a grammar; empty where it is the whole field.
    """
    if at and len(text) > MAX_PATTERN_LENGTH:
        raise _beyond(field, at, len(text), MAX_PATTERN_LENGTH, unit=" characters")
    scan = _Repetitions(field, at)
    place = 0
    while place < len(text):
        character = text[place]
        repetition = _REPETITION.match(text, place) if character == "{" else None
        if character == "\\":
            # What has a name in braces is one character.
            braces = re.compile(r"\\[pPxuU]\{[^}]{0,64}\}").match(text, place)
            scan.atom()
            place = braces.end() if braces else place + 2
            continue
        if character == "[":
            place = _end_of_class(text, place)
            scan.atom()
            continue
        if character == "(":
            scan.open()
        elif character == ")":
            scan.close()
        elif character == "|":
            scan.alternative()
        elif repetition is not None and (repetition["least"] or repetition["comma"]):
            scan.repeat(repetition)
            place = repetition.end()
            continue
        elif character not in "*+?":
            scan.atom()
        place += 1


def check_grammar(field: str, text: str) -> None:
    """Raise Failure for a grammar, GBNF or llguidance's Lark, whose repetitions, nesting or rules exceed a limit."""
    if text.lstrip().startswith(gbnf.LARK_MARK):
        _LarkCheck(field, text).run()
        return
    try:
        gbnf.to_lark(text)
    except gbnf.GbnfError as error:
        raise invalid(field, error.about(field), value=error.value, limit=error.limit) from None


def _check_keyword(field: str, path: str, key: str, value: Any) -> None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if key in _COUNTS and is_number:
        _check_count(field, path, value, MAX_COUNT)
    elif key in _LENGTHS and is_number:
        _check_count(field, path, value, MAX_STRING)
    elif key in _BOUNDS and is_number:
        if not (value == 0 or LEAST_NUMBER <= abs(value) <= MAX_NUMBER):
            message = (
                f"{field} has {_shown(value)} at {path}; it must be 0, or {LEAST_NUMBER:g} to {MAX_NUMBER:g} from 0"
            )
            raise invalid(field, message, value=_shown(value), limit=f"{MAX_NUMBER:g}")
    elif key == "multipleOf" and is_number:
        _check_multiple(field, path, value)
    elif key in _LISTS and isinstance(value, list):
        _at_most(field, path, len(value), _LISTS[key], unit=" entries")
    elif key == "pattern" and isinstance(value, str):
        check_regex(field, value, at=path)


def _check_count(field: str, path: str, value: float, limit: int) -> None:
    if not 0 <= value <= limit:
        message = f"{field} has {_shown(value)} at {path}; it must be 0 to {limit}"
        raise invalid(field, message, value=_shown(value), limit=limit)


def _check_multiple(field: str, path: str, value: float) -> None:
    if math.isfinite(value) and 0 < value <= MAX_NUMBER:
        _, digits, exponent = Decimal(str(value)).normalize().as_tuple()
        number = int("".join(map(str, digits)))
        if number <= MAX_MULTIPLE and isinstance(exponent, int) and abs(exponent) <= MAX_DECIMALS:
            return
    message = (
        f"{field} has {_shown(value)} at {path}; without its decimal point and the zeros at its ends it must be 1 to "
        f"{MAX_MULTIPLE}"
    )
    raise invalid(field, message, value=_shown(value), limit=MAX_MULTIPLE)


def _check_references(field: str, schema: Any, at: str) -> None:
    """Raise Failure for a reference that leads to a reference, and so on, too often."""
    targets = {path: reference for path, reference in _references(schema) if reference.startswith("#")}
    hops: dict[str, int] = {}
    for start in targets:
        place = start
        path: list[str] = []
        while place in targets and place not in hops and len(path) <= MAX_REFERENCE_HOPS:
            path.append(place)
            place = targets[place]
            if place in path:
                # A circle: engines know what to do with it.
                hops[place] = 0
        count = hops.get(place, 0)
        for passed in reversed(path):
            count += 1
            hops[passed] = min(count, hops.get(passed, count))
        if count > MAX_REFERENCE_HOPS:
            message = f"{field} has a chain of more than {MAX_REFERENCE_HOPS} references that begins at {at}{start[1:]}"
            raise invalid(field, message, value=count, limit=MAX_REFERENCE_HOPS)


def _target(schema: Any, reference: Any, at: str) -> list[tuple[str, Any]]:
    """The path and the value to which a reference within `schema` leads; nothing for another one."""
    if not isinstance(reference, str) or not reference.startswith("#/"):
        return []
    path, value = at, schema
    for part in reference[2:].split("/"):
        key = unquote(part).replace("~1", "/").replace("~0", "~")
        if isinstance(value, dict) and key in value:
            path, value = path + _step(key), value[key]
        elif isinstance(value, list) and key.isdecimal() and len(key) < _LONGEST_INDEX and int(key) < len(value):
            path, value = f"{path}[{int(key)}]", value[int(key)]
        else:
            return []
    return [(path, value)]


def _references(schema: Any) -> Iterator[tuple[str, str]]:
    """Pointers to the schemas that are references, each with where it leads."""
    waiting: list[tuple[str, Any]] = [("#", schema)]
    while waiting:
        pointer, value = waiting.pop()
        if isinstance(value, list):
            waiting += [(f"{pointer}/{index}", entry) for index, entry in enumerate(value)]
        elif isinstance(value, dict):
            if isinstance(value.get("$ref"), str):
                yield pointer, value["$ref"]
            for key, inner in value.items():
                if isinstance(inner, dict | list):
                    waiting.append((f"{pointer}/{key.replace('~', '~0').replace('/', '~1')}", inner))


class _Repetitions:
    """Follows how repetitions of a regular expression or a grammar multiply, group in group."""

    def __init__(self, field: str, at: str) -> None:
        self._field, self._at = field, at
        self._groups: Final[list[int]] = []
        """The largest product so far in each group that is open, outermost first."""
        self._largest = 1
        self._last = 1
        """The product of what a repetition would repeat."""
        self._alternatives = 1

    def atom(self) -> None:
        """Something that is not repeated inside."""
        self._note(self._last)
        self._last = 1

    def open(self) -> None:
        """A group begins."""
        self._note(self._last)
        self._last = 1
        self._groups.append(self._largest)
        self._largest = 1
        if len(self._groups) > MAX_GROUPS:
            raise _beyond(self._field, self._at, len(self._groups), MAX_GROUPS, unit=" groups inside one another")

    def close(self) -> None:
        """A group ends."""
        self._note(self._last)
        self._last = self._largest
        self._largest = self._groups.pop() if self._groups else 1

    def alternative(self) -> None:
        """Another alternative begins."""
        self.atom()
        self._alternatives += 1
        if self._alternatives > MAX_BRANCHES:
            raise _beyond(self._field, self._at, self._alternatives, MAX_BRANCHES, unit=" alternatives")

    def repeat(self, found: re.Match[str]) -> None:
        """What came last is repeated. Raises Failure."""
        shown, counts = found[0][:40], [found["least"] or "0", found["most"] or ""]
        numbers = [int(digits) if 0 < len(digits) < 10 else math.inf if digits else 0 for digits in counts]
        if max(numbers) > MAX_COUNT:
            raise _beyond(self._field, self._at, f"the repetition {shown}", MAX_COUNT)
        if counts[1] and numbers[1] < numbers[0]:
            message = f"{self._field} has the repetition {shown}, which ends before it begins; turn it around"
            if self._at:
                message = (
                    f"{self._field} has the repetition {shown} at {self._at}, which ends before it begins; "
                    "turn it around"
                )
            raise invalid(self._field, message, value=shown)
        self._last *= max(1, int(max(numbers)))
        if self._last > MAX_PRODUCT:
            times = f"repetitions inside one another of {self._last} times"
            raise _beyond(self._field, self._at, times, MAX_PRODUCT)
        self._note(self._last)

    def _note(self, product: int) -> None:
        self._largest = max(self._largest, product)


class _LarkCheck:
    """Checks a grammar in llguidance's Lark."""

    _TOKEN: Final = re.compile(
        r"""(?P<space>[\ \t\r\n]+) | (?P<comment>//[^\n]*|\#[^\n]*) | (?P<string>"(?:[^"\\\n]|\\.)*"[a-z]*)
        | (?P<regex>/(?:[^/\\\n]|\\.)+/[a-z]*) | (?P<directive>%[a-z]+) | (?P<name>[?!]*[A-Za-z_][A-Za-z0-9_.-]*)
        | (?P<token><[^>\n]*>) | (?P<other>.)""",
        re.VERBOSE,
    )

    def __init__(self, field: str, text: str) -> None:
        self._field: Final = field
        self._text: Final = text
        self._line = 1
        self._rule = ""
        self._references: Final[dict[str, list[str]]] = {}

    def run(self) -> None:
        """Raise Failure for what is beyond a limit."""
        text, place, scan = self._text, 0, self._fresh()
        while place < len(text):
            found = self._TOKEN.match(text, place)
            if found is None:
                place += 1
                continue
            end, kind, lexeme = found.end(), found.lastgroup, found[0]
            if kind == "name":
                behind = re.compile(
                    r"[ \t]{0,64}(?:\[[^\]\n]{0,512}\]|\{[A-Za-z_, \t]{0,512}\})?(?:\.-?\d{1,9})?[ \t]{0,64}:"
                ).match(text, end)
                if behind is not None:
                    self._begin(lexeme)
                    scan, end = self._fresh(), behind.end()
                else:
                    self._references.get(self._rule, []).append(lexeme.lstrip("?!"))
                    scan.atom()
            elif kind == "regex":
                check_regex(self._field, lexeme[1 : lexeme.rindex("/")], at=self._where())
                scan.atom()
            elif kind == "directive" and lexeme in ("%json", "%regex"):
                end = self._json(lexeme, end)
                scan.atom()
            elif kind in ("string", "token"):
                scan.atom()
            elif kind == "other" and lexeme in '"/':
                message = f"{self._field} has {lexeme} at {self._where()}, which no other one closes in its line"
                raise invalid(self._field, message, value=lexeme)
            elif kind == "other":
                end = self._punctuation(lexeme, place, scan)
            self._line += text.count("\n", place, end)
            place = end
        self._check_chains()

    def _punctuation(self, lexeme: str, place: int, scan: _Repetitions) -> int:
        repetition = (_REPETITION if lexeme == "{" else _TILDE).match(self._text, place) if lexeme in "{~" else None
        if repetition is not None and repetition["least"] + (repetition["most"] or ""):
            scan.repeat(repetition)
            return repetition.end()
        if lexeme == "(":
            scan.open()
        elif lexeme == ")":
            scan.close()
        elif lexeme == "|":
            scan.alternative()
        return place + 1

    def _begin(self, lexeme: str) -> None:
        self._rule = lexeme.lstrip("?!")
        self._references.setdefault(self._rule, [])
        if len(self._references) > MAX_LARK_RULES:
            raise _beyond(self._field, self._where(), len(self._references), MAX_LARK_RULES, unit=" rules")

    def _json(self, lexeme: str, place: int) -> int:
        begin = place + len(self._text[place:]) - len(self._text[place:].lstrip())
        try:
            value, length = json.JSONDecoder().raw_decode(self._text[begin:])
        except (ValueError, RecursionError):
            # The engine says what is wrong with it.
            return place
        if lexeme == "%json":
            check_schema(self._field, value, at=f"{self._where()}, $")
        return begin + length

    def _fresh(self) -> _Repetitions:
        return _Repetitions(self._field, self._where())

    def _where(self) -> str:
        rule = f", rule {self._rule[:80]}" if self._rule else ""
        return f"line {self._line}{rule}"

    def _check_chains(self) -> None:
        """Raise Failure for rules that lead to one another, one inside the other, too often."""
        entered: set[str] = set()
        for start in self._references:
            if start in entered:
                continue
            entered.add(start)
            path = [(start, iter(self._references[start]))]
            while path:
                for other in path[-1][1]:
                    if other in self._references and other not in entered:
                        entered.add(other)
                        path.append((other, iter(self._references[other])))
                        break
                else:
                    path.pop()
                if len(path) > MAX_LARK_CHAIN:
                    raise _beyond(
                        self._field,
                        f"rule {start[:80]}",
                        len(path),
                        MAX_LARK_CHAIN,
                        unit=" rules that lead to one another",
                    )


def _end_of_class(text: str, place: int) -> int:
    """The place behind a class of characters, which may have classes in it."""
    depth = 0
    while place < len(text):
        character = text[place]
        if character == "\\":
            place += 1
        elif character == "[":
            depth += 1
            # A bracket that comes first stands for itself.
            if text.startswith("^", place + 1):
                place += 1
            if text.startswith("]", place + 1):
                place += 1
        elif character == "]":
            depth -= 1
            if depth == 0:
                return place + 1
        place += 1
    return place


def _at_most(field: str, path: str, value: int, limit: int, *, unit: str) -> None:
    if value > limit:
        raise _beyond(field, path, value, limit, unit=unit)


def _beyond(field: str, where: str, value: object, limit: int, *, unit: str = "") -> Failure:
    if not where:
        return invalid(field, f"{field} has {value}{unit}; at most {limit} are allowed", value=value, limit=limit)
    message = f"{field} has {value}{unit} at {where}; at most {limit} are allowed"
    return invalid(field, message, value=value, limit=limit)


def _step(key: str) -> str:
    """Of a JSON path."""
    return f".{key}" if _PLAIN_KEY.fullmatch(key) else f"[{json.dumps(key[:64], ensure_ascii=False)}]"


def _shown(value: float) -> str:
    return (
        str(value) if isinstance(value, int) and abs(value) < 10**40 else f"{float(min(max(value, -1e308), 1e308)):g}"
    )
