"""`spk repair`: what is damaged in a store, built again."""

from pathlib import Path
from typing import Annotated

import typer

from cli.console import EXIT_CHECK_FAILED, MAX_LISTED, Json, Output, Quiet, Verbose, Workers, counted
from pipeline.storage.places import shown


def repair(
    store: Annotated[Path, typer.Argument(help="A store that `spk ingest` made.")],
    raw: Annotated[
        Path | None,
        typer.Option(
            help="Where the recordings are now, if not where they were ingested from. Only ever read."
        ),
    ] = None,
    workers: Workers = 2,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Rebuild what is damaged, byte for byte or not at all. Exit code 4: some of it could not be."""
    from pipeline.repair import repair as repair_store

    output = Output(as_json=json, quiet=quiet, verbose=verbose)
    with output.progress() as progress:
        done = repair_store(store, raw, workers=workers, progress=progress)
    if not done.repaired and not done.left:
        output.say(f"{shown(store)}: nothing is damaged")
    if done.repaired:
        output.say(f"{shown(store)}: {counted(len(done.repaired), 'file')} repaired, each to the byte")
    if done.left:
        rows = [(one.path, one.problem) for one in done.left]
        output.table(
            f"{shown(store)}: {counted(len(rows), 'file')} still damaged",
            ("file", "problem"),
            rows[:MAX_LISTED],
        )
        output.say("next: name the recordings with --raw, or build the store again: spk ingest … --overwrite")
    output.result(done.to_json())
    if done.left:
        raise typer.Exit(EXIT_CHECK_FAILED)
