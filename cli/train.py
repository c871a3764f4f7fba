"""`spk train`: a network, from a store and a config."""

from pathlib import Path
from typing import Annotated

import typer

from cli.console import Json, Output, Quiet, Verbose

EXIT_RESUMABLE = 75


def train(
    config: Annotated[Path, typer.Argument(help="A YAML file, for example configs/base.yaml.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Settings to change: store=STORE optim.lr=1.0e-4 …")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Run folder; runs/<config> by default.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the run's last checkpoint.")] = False,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Train a network on a store; `torchrun -m cli train …` uses many GPUs."""
    output = Output(as_json=json, quiet=quiet, verbose=verbose)

    from model.train import TrainConfig
    from model.train import train as run_training
    from pipeline.config import load_config

    run = out or Path("runs") / config.stem
    settings = load_config(TrainConfig, config, overrides or [])
    with output.progress() as progress:
        report = run_training(settings, run, resume=resume, progress=progress)
    quality = "" if report.val_psnr is None else f", validation {report.val_psnr:.2f} dB"
    output.say(f"{report.run}: step {report.step}{quality}; next: spk evaluate {report.run}")
    output.result(report.to_json())
    if report.interrupted:
        output.say(f"interrupted; go on with: spk train {config} -o {run} --resume")
        raise typer.Exit(EXIT_RESUMABLE)
