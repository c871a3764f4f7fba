"""`spk plan`: settings that fit the device, measured there before a long run is started."""

from dataclasses import asdict
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from cli.console import DryRun, Json, Output, Overwrite, Quiet, Verbose, counted, human_bytes, human_time
from cli.presets import config_path

if TYPE_CHECKING:
    from collections.abc import Sequence

    from model.planning.plan import Considered, Plan
    from model.training.config import TrainConfig


def plan(
    store: Annotated[Path, typer.Argument(help="The store to learn from.")],
    config: Annotated[Path, typer.Argument(help="A YAML file, or the name of a shipped preset.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Settings to change.")
    ] = None,
    batch: Annotated[
        int | None,
        typer.Option(min=1, help="Clips that a process takes in a step; those of the config by default."),
    ] = None,
    memory_gb: Annotated[
        float | None,
        typer.Option(help="Most memory to use, in 1e9 bytes; what is free, less a margin, by default."),
    ] = None,
    device: Annotated[
        Literal["auto", "cpu", "cuda"] | None, typer.Option(help="Where to measure; the config's by default.")
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="The plan to write.")] = Path("plan.json"),
    overwrite: Overwrite = False,
    dry_run: DryRun = False,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Measure a few steps, and choose batch, crop, accumulation and recomputation for the memory there is."""
    output = Output(as_json=json, quiet=quiet, verbose=verbose)
    settings = _read_settings(store, config, overrides or [], device)
    if dry_run:
        _foretell(output, settings, batch, memory_gb)
        return

    from model.plan import plan as make_plan

    with output.progress() as progress:
        made = make_plan(
            settings, out, clips=batch, memory_gb=memory_gb, overwrite=overwrite, progress=progress
        )
    show_plan(output, made)
    output.say(f"next: spk train {quote(str(out))} -o RUN")
    output.result({"plan": str(out), **made.to_json()})


def show_plan(output: Output, plan: "Plan") -> None:
    """What was considered, what was chosen, and what is to be expected of it."""
    where = f"{plan.device.name}, {plan.budget_bytes / 1e9:.2f} GB to use"
    _show_candidates(output, f"{where}, {counted(plan.clips_per_step, 'clip')} a step", plan.candidates)
    output.table(
        "the chosen setting, predicted and then measured",
        ("", "predicted", "measured"),
        [
            ("step", *(f"{one.step_s:.3g} s" for one in (plan.predicted, plan.measured))),
            ("peak memory", *(f"{one.peak_bytes / 1e9:.2f} GB" for one in (plan.predicted, plan.measured))),
            ("waiting for clips", *(f"{one.data_share:.1%}" for one in (plan.predicted, plan.measured))),
        ],
    )
    if len(plan.stretches) > 1:
        output.table(
            "steps",
            ("", "frames", "crop", "clips", "flow layers", "a step"),
            [
                (
                    f"{one.start + 1} to {one.stop}",
                    *map(str, (one.num_frames, one.crop, one.clips)),
                    "frozen" if one.flow_frozen else "learn",
                    f"{one.step_s:.3g} s",
                )
                for one in plan.stretches
            ],
        )
    run, config = plan.run, plan.config
    output.say(
        f"{counted(config.steps, 'step')} take {human_time(run.seconds)}, with "
        f"{counted(run.validations, 'validation')} of {run.validation_s:.3g} s and "
        f"{counted(run.checkpoints, 'checkpoint')} of {run.checkpoint_s:.3g} s"
    )
    output.say(
        f"checkpoints of {human_bytes(run.checkpoint_bytes)}, up to {human_bytes(run.disk_bytes)} on disk;"
        f" clips are read by {counted(config.workers, 'thread')}"
    )
    for note in plan.notes:
        output.say(f"note: {note}")


def _read_settings(store: Path, config: Path, overrides: list[str], device: str | None) -> "TrainConfig":
    path = config_path(config)

    from model.training.config import TrainConfig
    from pipeline.config import load_config
    from pipeline.storage.places import shown

    where = [f"parallel.device={device}"] if device else []
    return load_config(TrainConfig, path, [*overrides, *where, f"store={shown(store)}"])


def _foretell(output: Output, settings: "TrainConfig", batch: int | None, memory_gb: float | None) -> None:
    from model.plan import foretell

    with output.progress() as progress:
        found = foretell(settings, clips=batch, memory_gb=memory_gb, progress=progress)
    where = f"{found.device.name}, {found.budget_bytes / 1e9:.2f} GB to use"
    _show_candidates(output, f"{where}, {counted(found.clips_per_step, 'clip')} a step", found.candidates)
    output.result({**asdict(found), "dry_run": True})


def _show_candidates(output: Output, title: str, candidates: "Sequence[Considered]") -> None:
    output.table(
        title,
        ("batches x clips", "crop", "recomputed", "FLOPs", "predicted", "measured", "step", "verdict"),
        [
            (
                f"{one.accumulate} x {one.batch_size}",
                str(one.crop),
                ", ".join(map(str, one.checkpoint_stages)) or "none",
                f"+{one.extra_flops:.0%}",
                f"{one.predicted_bytes / 1e9:.2f} GB",
                "-" if one.measured_bytes is None else f"{one.measured_bytes / 1e9:.2f} GB",
                "-" if one.step_s is None else f"{one.step_s:.3g} s",
                one.verdict + (f": {one.reason}" if one.reason else ""),
            )
            for one in candidates
        ],
    )
