"""`spk align`: whether the exposures of a store agree with what its images and spikes show, and their correction."""

from pathlib import Path
from shlex import quote
from typing import Annotated, Any

import typer

from cli.console import EXIT_CHECK_FAILED, Json, Output, Quiet, Verbose, Workers, counted
from pipeline.errors import UsageError
from pipeline.storage.places import shown

SHOWN = 40


def align(
    store: Annotated[Path, typer.Argument(help="A store that `spk ingest` made.")],
    check: Annotated[
        bool, typer.Option("--check", help="Sweep the exposures, and report offsets. Changes nothing.")
    ] = False,
    apply: Annotated[
        bool,
        typer.Option("--apply", help="Also correct what is found shifted, in the store; never in raw data."),
    ] = False,
    sequence: Annotated[
        str, typer.Option(help="Only these sequences: a pattern of split/sequence, such as 'train/*'.")
    ] = "*",
    sweep: Annotated[int, typer.Option(min=2, help="Spike frames to sweep, either way.")] = 12,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="PNG of the error curves; STORE-alignment.png here without."),
    ] = None,
    workers: Workers = 2,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Check by content when frames were exposed. Exit code 4: some sequence's log is off."""
    from pipeline.alignment.check import check_alignment
    from pipeline.alignment.correct import correct_alignment
    from pipeline.alignment.plot import draw_alignment
    from pipeline.storage.fetching import working_folder
    from pipeline.store import open_store

    if not (check or apply):
        raise UsageError("spk align: say what to do", f"spk align {quote(shown(store))} --check")
    output = Output(as_json=json, quiet=quiet, verbose=verbose)
    opened = open_store(working_folder(store) if apply else store, hold=not apply)
    with output.progress() as progress:
        found = check_alignment(opened, sweep=sweep, only=sequence, workers=workers, progress=progress)
        picture = out or Path(f"{store.resolve().name}-alignment.png")
        draw_alignment(found, picture)
        corrections = {one.key: one.estimates.whole.offset for one in found if one.verdict == "shifted"}
        if apply:
            correct_alignment(opened, corrections, workers=workers, progress=progress)
    columns = ("sequence", "verdict", "offset", "best", "99 % interval", "R²", "hint")
    rows = [_row(one.to_json()) for one in found]
    output.table(f"{shown(store)}: spike frames to add to the exposures", columns, rows[:SHOWN])
    if len(rows) > SHOWN:
        output.say(f"and {counted(len(rows) - SHOWN, 'more sequence')}, all of which --json lists")
    applied = corrections if apply else {}
    off = [one.key for one in found if one.is_off and one.key not in applied]
    output.say(f"picture: {picture}")
    if applied:
        output.say(f"corrected {counted(len(applied), 'sequence')}; next: spk voxelize {quote(shown(store))}")
    elif corrections:
        output.say(
            f"to correct {counted(len(corrections), 'sequence')}: spk align {quote(shown(store))} --apply"
        )
    result = {"store": shown(store), "sweep": sweep, "picture": str(picture), "applied": applied}
    output.result(result | {"ok": not off, "sequences": [one.to_json() for one in found]})
    if off:
        raise typer.Exit(EXIT_CHECK_FAILED)


def _row(one: dict[str, Any]) -> tuple[str, ...]:
    interval = "-" if one["low"] is None else f"{one['low']:+.1f} to {one['high']:+.1f}"
    best = "-" if one["best"] is None else f"{one['best']:+.2f}"
    r2 = "-" if one["r2"] is None else f"{one['r2']:.3f}"
    decided = one["verdict"] in ("aligned", "shifted")
    offset = f"{one['offset']:+d}" if one["offset"] else "0"
    return one["sequence"], one["verdict"], offset if decided else "-", best, interval, r2, one["hint"]
