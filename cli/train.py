"""`spk train`: a network, from a store and a config."""

from dataclasses import asdict
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated

import typer

from cli.console import EXIT_RESUMABLE, DryRun, Json, Output, Quiet, Verbose, counted, human_bytes
from cli.presets import config_path
from pipeline.errors import ConfigError

if TYPE_CHECKING:
    from model.training.config import TrainConfig


def train(
    config: Annotated[
        Path, typer.Argument(help="A YAML file, or the name of a shipped preset: tiny, base, rgb_only …")
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="Settings to change: store=STORE optim.lr=1.0e-4 …"),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Run folder; runs/<config> by default.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the run's last checkpoint.")] = False,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Threads that read clips; the config's by default.")
    ] = None,
    dry_run: DryRun = False,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Train a network on a store; `torchrun -m cli train …` uses many GPUs."""
    output = Output(as_json=json, quiet=quiet, verbose=verbose)
    run = out or Path("runs") / config.stem
    changes = [*(overrides or []), *([f"workers={workers}"] if workers else [])]
    settings = _read_settings(config, changes)
    if dry_run:
        _say_plan(output, settings, run, resume=resume)
        return

    from model.training.signals import StopRequest

    # Signals are heard from here on, while torch is still being loaded.
    with StopRequest() as stop, output.progress() as progress:
        from model.train import train as run_training

        report = run_training(settings, run, resume=resume, stop=stop, progress=progress)
    quality = "" if report.val_psnr is None else f", validation {report.val_psnr:.2f} dB"
    output.result(report.to_json())
    if report.interrupted:
        resolved = quote(str(run / "config.yaml"))
        output.say(f"{run}: stopped after step {report.step}{quality}")
        output.say(f"go on with: spk train {resolved} -o {quote(str(run))} --resume")
        raise typer.Exit(EXIT_RESUMABLE)
    output.say(f"{run}: step {report.step}{quality}; next: spk evaluate {quote(str(run))}")


def _read_settings(name: Path, overrides: list[str]) -> "TrainConfig":
    path = config_path(name)

    from model.training.config import TrainConfig
    from pipeline.config import load_config

    try:
        return load_config(TrainConfig, path, overrides)
    except ConfigError as error:
        if not error.fix and error.problem.endswith("\n  store: missing"):
            raise ConfigError(
                error.problem, f"say what to learn from: spk train {name} store=STORE"
            ) from None
        raise


def _say_plan(output: Output, settings: "TrainConfig", run: Path, *, resume: bool) -> None:
    from model.training.dry_run import plan_training

    plan = plan_training(settings, run, resume=resume)
    size = human_bytes(plan.checkpoint_bytes)
    output.say(f"would train {run} from step {plan.step} to {plan.steps}")
    output.say(
        f"{counted(plan.clips, 'clip')} to learn from, {counted(plan.parameters, 'parameter')},"
        f" batches of {settings.batch_size}; checkpoints of about {size}, up to {settings.keep_checkpoints + 2}"
    )
    if plan.checkpoint_stages:
        output.say(f"recomputed in backward: stages {', '.join(map(str, plan.checkpoint_stages))}")
    stable = {"run": str(run), "loss": None, "val_psnr": None, "checkpoint": None, "dry_run": True}
    output.result(asdict(plan) | stable)
