"""`spk finalise`: parts that were built with `--parts`, made a store."""

from pathlib import Path
from shlex import quote
from typing import Annotated

import typer

from cli.console import DryRun, Json, Output, Quiet, Verbose, counted, human_bytes


def finalise(
    store: Annotated[Path, typer.Argument(help="Where `spk ingest` or `spk voxelize` built --parts.")],
    drop: Annotated[bool, typer.Option("--drop", help="Delete what the parts have built instead.")] = False,
    dry_run: DryRun = False,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Merge what processes with `--parts` have built: all of it, or nothing is changed."""
    from pipeline.errors import UsageError
    from pipeline.finalise import drop as drop_parts
    from pipeline.finalise import finalise as merge

    if drop and dry_run:
        raise UsageError("--drop and --dry-run: there is nothing to try", "leave one of them out")
    output = Output(as_json=json, quiet=quiet, verbose=verbose)
    if drop:
        dropped = drop_parts(store)
        output.say(f"{store}: dropped the parts of {', '.join(dropped) or 'nothing'}")
        output.result({"store": str(store), "dropped": dropped})
        return
    stages = merge(store, dry_run=dry_run)
    if not stages:
        output.say(f"{store}: no parts wait to be merged")
    for one in stages:
        report = one.report
        amount = f"{counted(report.sequences, 'sequence')}, {counted(report.frames, 'frame')}"
        size = f"{counted(report.written, 'shard')} ({human_bytes(report.num_bytes)})"
        verb = "could merge" if dry_run else "merged"
        output.say(f"{store}: {verb} {counted(one.parts, 'part')} of {one.stage}: {amount}, {size}")
    if stages and not dry_run:
        output.say(f"next: spk voxelize {quote(str(store))}, or spk train tiny {quote(f'store={store}')}")
    shown = {one.stage: one.to_json() for one in stages}
    output.result({"store": str(store), "stages": shown, "dry_run": dry_run})
    output.quarantined([problem for one in stages for problem in one.report.quarantined])
