"""`spk train`: a network, from a store and a config."""

import os
import shutil
import tempfile
from dataclasses import asdict
from functools import partial
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated

import typer

from cli.console import (
    EXIT_CHECK_FAILED,
    EXIT_RESUMABLE,
    DryRun,
    Json,
    Output,
    Quiet,
    Verbose,
    counted,
    human_bytes,
)
from cli.presets import config_path
from pipeline.errors import ConfigError, UsageError

if TYPE_CHECKING:
    from model.training.config import TrainConfig


def train(
    config: Annotated[
        Path, typer.Argument(help="A YAML file, a plan.json, or the name of a shipped preset: tiny, base, …")
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="Settings to change: store=STORE optim.lr=1.0e-4 …"),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Run folder; runs/CONFIG by default.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the run's last checkpoint.")] = False,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Threads that read clips; the config's by default.")
    ] = None,
    profile: Annotated[
        bool,
        typer.Option("--profile", help="Show where the time of steps 6 to 10 goes, and write RUN/profile."),
    ] = False,
    check_resume: Annotated[
        bool,
        typer.Option(
            "--check-resume",
            help="Prove it: train, kill, resume, and compare with a run that was not killed.",
        ),
    ] = False,
    check_steps: Annotated[
        int, typer.Option(min=2, help="Steps of --check-resume, before the kill and after.")
    ] = 10,
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
    if check_resume:
        if resume:
            raise UsageError("--check-resume makes runs of its own, and resumes those", "leave --resume out")
        _check_resume(output, settings, [str(config), *changes], out, check_steps)
        return

    from model.training.signals import StopRequest

    # Signals are heard from here on, while torch is still being loaded.
    with StopRequest() as stop:
        from model.train import train as run_training

        train_it = partial(run_training, settings, run, resume=resume, profile=profile, stop=stop)
        if output.is_watched:
            from cli.train_display import TrainDisplay

            display = TrainDisplay(str(run), settings.steps)
            with output.live(display):
                report = train_it(progress=display.progress, listeners=[display])
        else:
            report = train_it()
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
    if path.suffix == ".json":
        from model.planning.plan import settings_of

        return settings_of(path, overrides)

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


def _check_resume(
    output: Output, settings: "TrainConfig", arguments: list[str], out: Path | None, steps: int
) -> None:
    if "WORLD_SIZE" in os.environ:
        raise UsageError("--check-resume starts processes of its own", "run it without torchrun")
    if out is not None and out.exists() and any(out.iterdir()):
        raise UsageError(f"{out}: not empty", "choose another folder with -o, or none for a temporary one")

    import torch

    from cli.check_resume import check_resume

    on_cuda = settings.parallel.device != "cpu" and torch.cuda.is_available()
    folder = out or Path(tempfile.mkdtemp(prefix="spk-check-resume-"))
    with output.progress() as progress:
        check = check_resume(folder, arguments, steps, deterministic=on_cuda, progress=progress)
    rows = [
        (part.part, _is_equal(part.equal, part.max_difference), part.digests[0][:16]) for part in check.parts
    ]
    output.table(f"{steps} steps, kill -9, {steps} steps", ("part", "equal", "SHA-256"), rows)
    if repeated := [part.part for part in check.repeated if not part.equal]:
        output.say(f"two runs that nothing disturbed differ as well, in: {', '.join(repeated)}")
    kept = out is not None or not check.ok
    if kept:
        output.say(f"the runs are in {folder}")
    else:
        shutil.rmtree(folder)
    output.result(check.to_json() | {"run": str(folder) if kept else None})
    if not check.ok:
        raise typer.Exit(EXIT_CHECK_FAILED)


def _is_equal(equal: bool, difference: float | None) -> str:
    if equal:
        return "yes"
    return "no" if difference is None else f"no: by up to {difference:.1e}"


def _say_plan(output: Output, settings: "TrainConfig", run: Path, *, resume: bool) -> None:
    from model.training.dry_run import plan_training
    from model.training.schedules import in_words

    plan = plan_training(settings, run, resume=resume)
    size = human_bytes(plan.checkpoint_bytes)
    kept = settings.keep_checkpoints + 2
    if settings.keep_every:
        kept += settings.steps // settings.keep_every
    output.say(f"would train {run} from step {plan.step} to {plan.steps}")
    learning = f" of which {plan.trainable} learn," if plan.trainable < plan.parameters else ""
    output.say(
        f"{counted(plan.clips, 'clip')} to learn from, {counted(plan.parameters, 'parameter')},{learning}"
        f" batches of {settings.batch_size}; checkpoints of about {size}, up to {kept}"
    )
    if plan.checkpoint_stages:
        output.say(f"recomputed in backward: stages {', '.join(map(str, plan.checkpoint_stages))}")
    output.say(in_words(settings.optim, plan.steps))
    for part in (*plan.paces, *plan.phases):
        output.say(str(part))
    stable = {"run": str(run), "loss": None, "val_psnr": None, "checkpoint": None, "dry_run": True}
    output.result(asdict(plan) | stable)
