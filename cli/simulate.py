"""`spk simulate`: blurry and sharp frames, spikes and a timestamp log, from generated scenes or sharp footage."""

from pathlib import Path
from shlex import quote
from typing import Annotated, Any

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
        typer.Argument(
            help="Settings to change: train=48 rig.scale=2 rig.camera.threshold=4.0 rig.camera.maps=FILE …"
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Other seeds give other scenes, motions and noise.")] = 0,
    sweep: Annotated[
        str | None,
        typer.Option(
            metavar="KEY=V,V,…",
            help="Film the same with several values of one setting of the spike camera, threshold=1,2,4:"
            " a data set for each, in OUT/threshold_1 …",
        ),
    ] = None,
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
    from pipeline.simulation.sweep import sweep_points
    from pipeline.simulation.video_takes import VideoConfig

    output = Output(as_json=json, quiet=quiet, verbose=verbose)
    points = {out / point.folder: [point.override] for point in sweep_points(sweep)} if sweep else {out: []}
    settings = SceneConfig if source == SCENES else VideoConfig
    configs = {place: from_overrides(settings, [*(overrides or []), *more]) for place, more in points.items()}
    reports = []
    for place, config in configs.items():
        with output.progress() as progress:
            options = {"seed": seed, "workers": workers, "overwrite": overwrite, "dry_run": dry_run}
            if isinstance(config, SceneConfig):
                report = simulate_scenes(place, config, **options, progress=progress)
            else:
                report = simulate_video(Path(source), place, config, **options, progress=progress)
        amount = f"{counted(report.sequences, 'sequence')}, {counted(report.frames, 'RGB frame')}"
        if dry_run:
            output.say(f"{place}: would film {amount}; {report.skipped} are there already")
        else:
            output.say(f"{place}: {report.written} written, {report.skipped} kept of {amount}")
        reports.append(report.to_json())
    if not dry_run:
        first = next(iter(configs))
        output.say(f"next: spk ingest {quote(str(first))} --manifest simulated -o STORE")
    output.result((_in_all(out, reports) if sweep else reports[0]) | {"dry_run": dry_run})


def _in_all(out: Path, reports: list[dict[str, Any]]) -> dict[str, Any]:
    """The JSON object of a sweep: what its data sets have together, and each of them in `data_sets`."""
    together = ("sequences", "frames", "written", "skipped", "seconds")
    sums = {key: sum(report[key] for report in reports) for key in together}
    return {"raw": str(out), **sums, "data_sets": reports}
