"""`spk voxelize`: voxel grids and statistics into a store."""

from pathlib import Path
from shlex import quote
from typing import Annotated

import typer

from cli.console import Codec, DryRun, Json, Output, Overwrite, Parts, Quiet, Scheduler, Verbose, Workers
from cli.stages import report_stage
from pipeline.storage.places import shown


def voxelize(
    store: Annotated[
        Path, typer.Argument(help="A store that `spk ingest` made: a folder, or s3://BUCKET/NAME.")
    ],
    bins: Annotated[int, typer.Option(min=1, help="Time bins per exposure.")] = 32,
    name: Annotated[str | None, typer.Option(help="Name of the grids in the store; k32 for 32 bins.")] = None,
    codec: Codec = "none",
    virtual: Annotated[
        bool, typer.Option("--virtual", help="Store the rule and the statistics; count when reading.")
    ] = False,
    workers: Workers = 2,
    scheduler: Scheduler = None,
    parts: Parts = None,
    overwrite: Overwrite = False,
    dry_run: DryRun = False,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Count spikes into time bins per exposure, with the train split's exact statistics."""
    from pipeline.storage.plans import Part
    from pipeline.voxelize import voxelize as build_voxels

    part = None if parts is None else Part.parse(parts)
    output = Output(as_json=json, quiet=quiet, verbose=verbose)
    with output.progress() as progress:
        report = build_voxels(
            store,
            num_bins=bins,
            name=name,
            codec=codec,
            virtual=virtual,
            workers=workers,
            overwrite=overwrite,
            dry_run=dry_run,
            scheduler=scheduler,
            part=part,
            progress=progress,
        )
    next_step = "" if dry_run or part else _next_step(store)
    report_stage(output, report, "voxel grids", next_step, dry_run=dry_run, parts=parts)


def _next_step(store: Path) -> str:
    """Training, where there is something to train on."""
    from pipeline.store import open_store

    if open_store(store).splits.get("train"):
        return f"spk train tiny {quote(f'store={shown(store)}')}"
    return f"spk evaluate RUN {quote(shown(store))}"
