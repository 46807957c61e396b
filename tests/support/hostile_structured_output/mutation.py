"""Random changes of grammars."""

from __future__ import annotations

from random import Random


def mutated_text(random: Random, text: str) -> str:
    """Return a grammar with one to five random insertions, deletions and copies."""
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
