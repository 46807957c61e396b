"""A translated GBNF allows the same texts as in llama.cpp."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from services.inference.triton_backend.gbnf.lark import as_lark
from services.worker.triton_kit.request_error import RequestError
from tests.contract.triton.llama_walk import TooComplexError, Walk
from tests.support.fault_table import times

CASES = {
    'root ::= "a" [b-d]? ("e" | "f")*': ["a", "ab", "abe", "abef", "b", "ae", ""],
    'root ::= "ab" | "a" "bc"': ["abc", "ab", "a"],
    'root ::= ("a" | "ab") ("c" | "bc")\n': ["ac", "abc", "abbc", "ab"],
    'root ::= x{2} y{1,} z{0,2}\nx ::= "x"\ny ::= [^a-x]\nz::="z"': ["xxy", "xyz", "xxyzz", "xxzzz"],
    '# comment\nroot ::= # another\n  "a" |\n  "b" # c\n\nx-1 ::= "x"\n': ["a", "b", "c"],
    (
        'root ::= ( "a"\r\n  | "b" )+ x-2b\r\n'
        'x-2b ::= "\\n" | "\\x41" | "\\u00e9" | "\\U0001F600" | "\\\\" | "\\"" | "\\["'
    ): ["a\n", "abA", "bé", "a😀", "a\\", 'a"', "b[", "b\t", "b"],
    'root ::= expr\nexpr ::= term ("+" term)*\nterm ::= num | "(" expr ")"\nnum ::= [0-9]+': [
        *("1", "1+2", "(1+23)+4", "(1", "1+", "")
    ],
    'root ::= "" | "a" root "b"': ["", "ab", "aabb", "aab"],
    'root ::= p\np ::= "a" p "a" | "b" p "b" | "a" | "b"': ["a", "aba", "abba", "abbba"],
    "root ::= . . .": ["abc", "é😀\n", "ab"],
    'root ::= [^"\\\\]* "\\""': ['ab"', '"', "a"],
    "root ::= [\\]a-]+": ["]", "-a]", "b"],
    "root ::= [a-]": ["-", "a", "b"],
    'root ::= "a"{0}"b"': ["b", "ab"],
    'root ::= "ab"+': ["ab", "abab", "abb"],
    'root ::= "a" | ': ["", "a"],
    'root ::= A1 b-B\nA1 ::= "x"\nb-B ::= "y"': ["xy", "x"],
}


@pytest.fixture(scope="module")
def walk(gguf: Path) -> Walk:
    return Walk(gguf)


@pytest.mark.parametrize("grammar", CASES)
def test_a_translated_grammar_allows_the_same_texts_as_in_llama_cpp(walk: Walk, grammar: str) -> None:
    theirs, ours = walk.gbnf(grammar), walk.grammar(grammar)
    assert theirs is not None
    for text in CASES[grammar]:
        assert walk.allows(ours, text) == walk.allows(theirs, text), text


def random_body(random: Random, rules: list[str], depth: int) -> str:
    options = []
    for _ in range(random.randint(1, 3)):
        items = []
        for _ in range(random.randint(0 if depth else 1, 3)):
            kind = random.randrange(4 if depth else 3)
            item = (
                f'"{"".join(random.choices("abc", k=random.randint(1, 3)))}"'
                if kind == 0
                else f"[{random.choice(['a', '^a', 'a-b', '^b-c'])}]"
                if kind == 1
                else random.choice([*rules, '"c"'])
                if kind == 2
                else f"({random_body(random, rules, depth - 1)})"
            )
            items.append(item + random.choice(["", "", "", "*", "+", "?", "{2}", "{1,2}", "{0,1}"]))
        options.append(" ".join(items))
    return " | ".join(options)


def rule(name: str, body: str) -> str:
    # After "::=" and "|", llama.cpp continues in the next line: an empty alternative would take the next rule's name.
    is_open = not body.strip() or body.lstrip().startswith("|") or body.rstrip().endswith("|")
    return f"{name} ::= ({body})" if is_open else f"{name} ::= {body}"


def test_translated_random_grammars_allow_the_same_texts(walk: Walk) -> None:
    """llama.cpp rejects grammars with left recursion, which the comparison leaves out."""
    compared = rejected = agreed = complex_texts = 0
    for seed in range(times(30, 400)):
        random = Random(seed)
        # Every fourth grammar is recursive.
        names = ["root", "r1", "r2"]
        referred = [names if seed % 4 == 0 else names[index + 1 :] for index in range(3)]
        grammar = "\n".join(
            rule(name, random_body(random, later, 2)) for name, later in zip(names, referred, strict=True)
        )
        theirs = walk.gbnf(grammar)
        if theirs is None:
            rejected += 1
            continue
        try:
            ours = walk.grammar(grammar)
        except RequestError:
            # The language has no text, such as that of a rule that always needs itself.
            rejected += 1
            continue
        compared += 1
        for _ in range(12):
            text = "".join(random.choices("abc", k=random.randint(0, 5)))
            try:
                allowed = walk.allows(ours, text)
            except TooComplexError:
                complex_texts += 1
                continue
            assert allowed == walk.allows(theirs, text), (seed, grammar, text)
            agreed += 1
    print(
        f"seeds 0 to {compared + rejected - 1}: {compared} grammars compared with {agreed} texts; "
        f"{complex_texts} texts were too complex, {rejected} grammars skipped"
    )
    assert compared > 20
    assert agreed > 10 * complex_texts


@pytest.mark.parametrize(
    "grammar",
    [
        "root ::= s\ns ::= [a-zA-Z ,.!?] s? s? s? | [a-zA-Z ,.!?]",
        'root ::= (x | x x | x x x)+ "!"\nx ::= [a-z ] | [a-z ] [a-z ] | x2\nx2 ::= [a-z ]*',
        "root ::= " + "[a-zA-Z ,.]* " * 200,
        "root ::= " + "(" * 12 + "[a-z ]" + ")+" * 12,
        "root ::= s\ns ::= s s s | s s | [a-zA-Z ,.!?]",
        "root ::= s\ns ::= s s s | s s | [a-zA-Z ,.!?] | t\nt ::= s s* s* | s t | t t t",
        "root ::= (root | [a-z,. ])+",
    ],
)
def test_an_ambiguous_grammar_takes_bounded_time_per_token(walk: Walk, grammar: str) -> None:
    """llama.cpp's own sampler takes minutes of CPU time for one token of these grammars, on any machine."""
    sampler = walk.grammar(grammar)
    worst = max(walk.steps(sampler, "hello world this is a test " * times(1, 6)))
    walk.api.lib.llama_sampler_free(sampler)
    assert worst < 5


def test_a_lark_grammar_is_not_translated() -> None:
    text = '  %llguidance {}\nstart: "a"'
    assert as_lark(text) == text
