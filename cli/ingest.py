"""`spk ingest`: recordings into a store."""

from pathlib import Path
from shlex import quote
from typing import Annotated

import typer

from cli.console import Codec, DryRun, Json, Out, Output, Overwrite, Parts, Quiet, Scheduler, Verbose, Workers
from cli.stages import report_stage
from pipeline.storage.places import shown


def ingest(
    raw: Annotated[Path, typer.Argument(help="Root directory of the recordings. Only ever read.")],
    out: Out,
    manifest: Annotated[
        str, typer.Option("--manifest", "-m", help="A manifest file, or the name of a shipped one.")
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(help="Changes to the manifest: spikes.height=360 spikes.bit_order=msb …"),
    ] = None,
    quarantine: Annotated[
        bool,
        typer.Option(
            "--quarantine", help="Set bad frames aside and list them (exit code 3) instead of refusing."
        ),
    ] = False,
    codec: Codec = "none",
    workers: Workers = 2,
    scheduler: Scheduler = None,
    parts: Parts = None,
    overwrite: Overwrite = False,
    dry_run: DryRun = False,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Parse, check and align recordings into a Zarr store: a folder, or s3://BUCKET/NAME."""
    from pipeline.ingest import ingest as build_store
    from pipeline.manifest import read_manifest
    from pipeline.storage.plans import Part

    part = None if parts is None else Part.parse(parts)
    output = Output(as_json=json, quiet=quiet, verbose=verbose)
    with output.progress() as progress:
        report = build_store(
            raw,
            out,
            read_manifest(manifest, overrides or []),
            codec=codec,
            workers=workers,
            quarantine=quarantine,
            overwrite=overwrite,
            dry_run=dry_run,
            scheduler=scheduler,
            part=part,
            progress=progress,
        )
    next_step = f"spk voxelize {quote(shown(out))}"
    report_stage(output, report, "recordings", next_step, dry_run=dry_run, parts=parts)
