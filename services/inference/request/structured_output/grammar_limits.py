"""Limits on the repetitions, nesting and rules of grammars: GBNF, and llguidance's Lark."""

from __future__ import annotations

import json
import re
from typing import Final

from services.inference.request.structured_output.regex_limits import REPETITION, RepetitionCounter, check_regex
from services.inference.request.structured_output.schema_limits import check_schema
from services.inference.triton_backend.gbnf.grammar import GbnfError
from services.inference.triton_backend.gbnf.lark import is_lark, to_lark
from services.runtime.failure import invalid
from services.runtime.messages.message import Message

MAX_LARK_RULES: Final = 500
MAX_LARK_CHAIN: Final = 256
"""The longest chain of references between rules of a Lark grammar."""
_GAP: Final = r"(?:\s|//[^\n]*+|\#[^\n]*+)*+"
"""White space and comments of Lark. The pattern never backtracks, so that matching takes linear time."""
_TILDE: Final = re.compile(
    rf"~{_GAP}(?P<least>[0-9]+)(?:{_GAP}(?P<comma>\.\.){_GAP}(?P<most>[0-9]+))?",
)


def check_grammar(field: str, text: str) -> None:
    """Raise Failure for a grammar, GBNF or llguidance's Lark, whose repetitions, nesting or rules exceed a limit.

    It also raises Failure for an invalid GBNF. An invalid Lark grammar is left to the engine.
    """
    if is_lark(text):
        _LarkCheck(field, text).run()
        return
    try:
        to_lark(text)
    except GbnfError as error:
        raise invalid(Message(error.message_id, **{"field": field, **error.parameters})) from None


class _LarkCheck:
    """Checks a grammar in llguidance's Lark."""

    _TOKEN: Final = re.compile(
        r"""(?P<space>[\ \t\r\n]+) | (?P<comment>//[^\n]*|\#[^\n]*) | (?P<string>"(?:[^"\\\n]|\\.)*"[a-z]*)
        | (?P<regex>/(?:[^/\\\n]|\\.)+/[a-z]*) | (?P<directive>%[a-z]+) | (?P<name>[?!]*[A-Za-z_][A-Za-z0-9_.-]*)
        | (?P<token><[^>\n]*>) | (?P<other>.)""",
        re.VERBOSE,
    )

    def __init__(self, field: str, text: str) -> None:
        """Prepare the check of `text`, the value of `field`."""
        self._field: Final = field
        self._text: Final = text
        self._line = 1
        self._rule = ""
        self._references: Final[dict[str, list[str]]] = {}

    def run(self) -> None:
        """Raise Failure if the grammar exceeds a limit."""
        text, offset, counter = self._text, 0, self._new_counter()
        while offset < len(text):
            token = self._TOKEN.match(text, offset)
            if token is None:
                offset += 1
                continue
            end, kind, lexeme = token.end(), token.lastgroup, token[0]
            if kind == "name":
                definition = re.compile(
                    r"[ \t]{0,64}(?:\[[^\]\n]{0,512}\]|\{[A-Za-z_, \t]{0,512}\})?(?:\.-?\d{1,9})?[ \t]{0,64}:"
                ).match(text, end)
                if definition is not None:
                    self._begin(lexeme)
                    counter, end = self._new_counter(), definition.end()
                else:
                    self._references.get(self._rule, []).append(lexeme.lstrip("?!"))
                    counter.atom()
            elif kind == "regex":
                check_regex(self._field, lexeme[1 : lexeme.rindex("/")], at=self._where())
                counter.atom()
            elif kind == "directive" and lexeme in ("%json", "%regex"):
                end = self._json(lexeme, end)
                counter.atom()
            elif kind in ("string", "token"):
                counter.atom()
            elif kind == "other" and lexeme in '"/':
                raise invalid(Message("grammar_not_closed", field=self._field, value=lexeme, at=self._where()))
            elif kind == "other":
                end = self._punctuation(lexeme, offset, counter)
            self._line += text.count("\n", offset, end)
            offset = end
        self._check_chains()

    def _punctuation(self, lexeme: str, offset: int, counter: RepetitionCounter) -> int:
        repetition = (REPETITION if lexeme == "{" else _TILDE).match(self._text, offset) if lexeme in "{~" else None
        if repetition is not None and repetition["least"] + (repetition["most"] or ""):
            counter.repeat(repetition)
            return repetition.end()
        if lexeme == "(":
            counter.open()
        elif lexeme == ")":
            counter.close()
        elif lexeme == "|":
            counter.alternative()
        return offset + 1

    def _begin(self, lexeme: str) -> None:
        self._rule = lexeme.lstrip("?!")
        self._references.setdefault(self._rule, [])
        if len(self._references) > MAX_LARK_RULES:
            count = len(self._references)
            raise invalid(
                Message(
                    "grammar_too_many_rules", field=self._field, value=count, at=self._where(), limit=MAX_LARK_RULES
                )
            )

    def _json(self, lexeme: str, offset: int) -> int:
        begin = offset + len(self._text[offset:]) - len(self._text[offset:].lstrip())
        try:
            value, length = json.JSONDecoder().raw_decode(self._text[begin:])
        except (ValueError, RecursionError):
            # The engine reports the error.
            return offset
        if lexeme == "%json":
            check_schema(self._field, value, at=f"{self._where()}, $")
        return begin + length

    def _new_counter(self) -> RepetitionCounter:
        return RepetitionCounter(self._field, self._where)

    def _where(self) -> str:
        rule = f", rule {self._rule[:80]}" if self._rule else ""
        return f"line {self._line}{rule}"

    def _check_chains(self) -> None:
        """Raise Failure for a chain of references between rules that is too long."""
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
                    last = path[-1][0][:80]
                    raise invalid(
                        Message(
                            "grammar_rules_chained",
                            field=self._field,
                            value=len(path),
                            rule=last,
                            limit=MAX_LARK_CHAIN,
                        )
                    )
