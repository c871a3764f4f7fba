"""`spk simulate`: blurry and sharp frames, spikes and a timestamp log, from generated scenes or sharp footage."""

from pathlib import Path
from shlex import quote
from typing import Annotated

import typer

from cli.console import DryRun, Json, Out, Output, Overwrite, Quiet, Verbose, Workers, counted

SCENES = "scenes"


def simulate(
    source: Annotated[
        str,
        typer.Argument(
            help=f"Sharp images, frame folders or video; or the word {SCENES} for generated ones."
        ),
    ],
    out: Out,
    overrides: Annotated[
        list[str] | None,
        typer.Argument(help="Settings to change: train=48 rig.scale=2 rig.camera.threshold=4.0 …"),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Other seeds give other scenes, motions and noise.")] = 0,
    workers: Workers = 2,
    overwrite: Overwrite = False,
    dry_run: DryRun = False,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Film sharp footage with a simulated spike camera beside an RGB camera."""
    from pipeline.config import from_overrides
    from pipeline.simulate import simulate_scenes, simulate_video
    from pipeline.simulation.scenes import SceneConfig
    from pipeline.simulation.video_takes import VideoConfig

    output = Output(as_json=json, quiet=quiet, verbose=verbose)
    with output.progress() as progress:
        if source == SCENES:
            scenes = from_overrides(SceneConfig, overrides or [])
            report = simulate_scenes(
                out,
                scenes,
                seed=seed,
                workers=workers,
                overwrite=overwrite,
                dry_run=dry_run,
                progress=progress,
            )
        else:
            video = from_overrides(VideoConfig, overrides or [])
            report = simulate_video(
                Path(source),
                out,
                video,
                seed=seed,
                workers=workers,
                overwrite=overwrite,
                dry_run=dry_run,
                progress=progress,
            )
    amount = f"{counted(report.sequences, 'sequence')}, {counted(report.frames, 'RGB frame')}"
    if dry_run:
        output.say(f"{out}: would film {amount}; {report.skipped} are there already")
    else:
        output.say(f"{out}: {report.written} written, {report.skipped} kept of {amount}")
        output.say(f"next: spk ingest {quote(str(out))} --manifest simulated -o STORE")
    output.result(report.to_json() | {"dry_run": dry_run})
