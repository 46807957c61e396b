"""Reads a service's settings from VILIX_… variables into one frozen, validated object, which --help describes."""

from __future__ import annotations

import sys
from typing import TypeVar

from pydantic import ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

PREFIX = "VILIX_"


class Settings(BaseSettings):
    """Base of every service's settings. Field `max_body_bytes` is read from `VILIX_MAX_BODY_BYTES`."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="ignore")


S = TypeVar("S", bound=Settings)


def load(cls: type[S], *, command: str) -> S:
    """Read `cls` from the environment, for a service started as `python -m COMMAND`.

    `--help` prints every variable with its meaning and default, then exits with 0. Any other argument, and a variable
    that is missing or does not fit, ends the process with 2 and a line that names the variable and its value.
    """
    arguments = sys.argv[1:]
    if "--help" in arguments or "-h" in arguments:
        print(describe(cls, command=command))
        raise SystemExit(0)
    if arguments:
        raise SystemExit(_reject(f"{command} takes no arguments, and got {arguments[0]!r}; see --help"))
    try:
        return cls()
    except ValidationError as error:
        lines = []
        for problem in error.errors():
            name = PREFIX + "_".join(str(part) for part in problem["loc"]).upper()
            if problem["type"] == "missing":
                lines.append(f"{name} is not set, and has no default")
            else:
                lines.append(f"{name}={problem['input']!r}: {problem['msg']}")
        raise SystemExit(_reject("; ".join(lines) + f" (see python -m {command} --help)")) from None


def describe(cls: type[Settings], *, command: str) -> str:
    """Return the `--help` text: a paragraph per variable, with its default and meaning."""
    lines = [f"Usage: python -m {command}", "", (cls.__doc__ or "").strip(), "", "Environment:"]
    for name, field in cls.model_fields.items():
        default = "required" if field.is_required() else _written(field.get_default(call_default_factory=True))
        lines.append(f"  {PREFIX}{name.upper()}  ({default})")
        if field.description:
            lines.append(f"      {field.description}")
    return "\n".join(lines)


def _written(default: object) -> str:
    match default:
        case None | "":
            return "optional"
        case bool():
            return f"default {str(default).lower()}"
        case float():
            return f"default {default:g}"
    return f"default {default}"


def _reject(message: str) -> int:
    print(f"error: {message}", file=sys.stderr)
    return 2
