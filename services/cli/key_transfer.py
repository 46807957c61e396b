"""`vilix keys export` and `vilix keys import`: move keys to another Redis."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError

from services.cli.failure import fail
from services.cli.json_output import AsJson, print_json
from services.cli.redis_access import RedisUrl, run
from services.cli.stack_state import RUN_DIR, StateDir
from services.gateway.tenancy import key_transfer
from services.gateway.tenancy.key_transfer import Export, ImportResult


def export_keys(
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="FILE", help="Write to a new private file; default: print.")
    ] = None,
    redis_url: RedisUrl = None,
    state_dir: StateDir = RUN_DIR,
) -> None:
    """Print all valid keys as JSON, for vilix keys import: their ids, limits and digests, and no secret.

    Secrets cannot be computed from their digests. Usage is not exported.

    Examples:
      vilix keys export -o keys.json
      vilix keys export | VILIX_REDIS_URL=redis://new vilix keys import
    """
    export = run(redis_url, state_dir, key_transfer.export_all)
    text = export.model_dump_json(indent=2) + "\n"
    if output is None:
        print(text, end="")
        return
    try:
        output.touch(mode=0o600, exist_ok=False)
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        fail(f"{output} cannot be written: {error.strerror}")
    print(f"Exported {len(export.keys)} keys to {output}.", file=sys.stderr)


def import_keys(
    path: Annotated[
        Path | None, typer.Argument(metavar="[FILE]", help="What vilix keys export wrote; default: stdin.")
    ] = None,
    redis_url: RedisUrl = None,
    state_dir: StateDir = RUN_DIR,
    as_json: AsJson = False,
) -> None:
    """Create the keys of an export. Their secrets stay valid.

    A key that is here already, also a revoked one, is left as it is, so that an import can be repeated. A key whose
    name another one has is skipped, and the command exits with 1.

    Examples:
      vilix keys import keys.json
      ssh old-host vilix keys export | vilix keys import
    """
    try:
        text = sys.stdin.read() if path is None else path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        fail(f"{path or 'the input'} cannot be read: {error}")
    try:
        export = Export.model_validate_json(text)
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(str(part) for part in problem["loc"])
        fail(f"{path or 'the input'} is no export of keys: {where}{': ' if where else ''}{problem['msg']}")

    async def create(redis: Any) -> dict[str, ImportResult]:
        return {key.id: await key_transfer.import_key(redis, key) for key in export.keys}

    results = run(redis_url, state_dir, create)
    skipped = [key for key in export.keys if results[key.id] is ImportResult.NAME_TAKEN]
    if as_json:
        print_json([{"id": key.id, "name": key.name, "result": results[key.id]} for key in export.keys])
    else:
        imported = sum(result is ImportResult.IMPORTED for result in results.values())
        present = sum(result is ImportResult.PRESENT for result in results.values())
        print(f"Imported {imported} of {len(results)} keys; {present} were here already.")
    for key in skipped:
        print(f"error: {key.id} was skipped, because another key has the name {key.name!r}", file=sys.stderr)
    if skipped:
        raise typer.Exit(1)
