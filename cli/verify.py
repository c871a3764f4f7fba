"""`spk verify`: is every file of a store as it was written?"""

from pathlib import Path
from shlex import quote
from typing import Annotated

import typer

from cli.console import (
    EXIT_CHECK_FAILED,
    MAX_LISTED,
    Json,
    Output,
    Quiet,
    Scheduler,
    Verbose,
    Workers,
    counted,
)
from pipeline.storage.places import shown


def verify(
    store: Annotated[Path, typer.Argument(help="A store that `spk ingest` made.")],
    deep: Annotated[
        bool, typer.Option("--deep", help="Compare every byte with its checksum, not only sizes.")
    ] = False,
    workers: Workers = 2,
    scheduler: Scheduler = None,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Check the files of a store, and change nothing. Exit code 4: some are missing or damaged."""
    from pipeline.verify import verify as verify_store

    output = Output(as_json=json, quiet=quiet, verbose=verbose)
    with output.progress() as progress:
        found = verify_store(store, deep=deep, workers=workers, scheduler=scheduler, progress=progress)
    if found.ok:
        how = "every byte of" if deep else "the sizes of"
        output.say(f"{shown(store)}: {how} {counted(found.checked, 'file')} as written")
        if not deep:
            output.say(f"every byte: spk verify {quote(shown(store))} --deep")
    else:
        rows = [(one.path, one.problem) for one in found.damaged]
        output.table(
            f"{shown(store)}: {counted(len(rows), 'damaged file')}", ("file", "problem"), rows[:MAX_LISTED]
        )
        if len(rows) > MAX_LISTED:
            output.say(f"and {len(rows) - MAX_LISTED} more, all of which --json lists")
        output.say(f"next: spk repair {quote(shown(store))}")
    output.result(found.to_json())
    if not found.ok:
        raise typer.Exit(EXIT_CHECK_FAILED)
