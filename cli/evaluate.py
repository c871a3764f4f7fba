"""`spk evaluate`: scores, pictures and a report of a trained network."""

from pathlib import Path
from typing import Annotated

import typer

from cli.console import Json, Output, Quiet, Verbose
from pipeline.errors import UsageError


def evaluate(
    checkpoint: Annotated[Path, typer.Argument(help="A run folder, or a checkpoint.")],
    arguments: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[STORE] [KEY=VALUE]...",
            help="The store, if it is not the one trained on, and settings to change.",
        ),
    ] = None,
    split: Annotated[str, typer.Option(help="Which split of the store.")] = "test",
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Where to write; <run>/eval by default.")
    ] = None,
    compare: Annotated[
        list[str] | None, typer.Option(help="NAME=CHECKPOINT: score another network beside it.")
    ] = None,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Restore every frame of a split, score it, and write tables, pictures and report.html."""
    output = Output(as_json=json, quiet=quiet, verbose=verbose)

    from model.checkpoint import find_checkpoint, read_info
    from model.evaluate import EvaluateConfig
    from model.evaluate import evaluate as run_evaluation
    from pipeline.config import from_overrides

    stores = [argument for argument in arguments or [] if "=" not in argument]
    overrides = [argument for argument in arguments or [] if "=" in argument]
    if len(stores) > 1:
        raise UsageError(
            f"more than one store: {', '.join(stores)}", "spk evaluate RUN [STORE] [key=value …]"
        )
    config = from_overrides(EvaluateConfig, [f"split={split}", *overrides])
    store = Path(stores[0]) if stores else Path(read_info(find_checkpoint(checkpoint)).config["store"])
    with output.progress() as progress:
        report = run_evaluation(
            checkpoint,
            store,
            out or _default_folder(checkpoint),
            config,
            compare=_named_paths(compare or []),
            progress=progress,
        )
    score_table(output, f"{split} split, protocol {config.protocol}", report.rows)
    output.say(f"report: {report.report}")
    output.result(report.to_json())


def score_table(output: Output, title: str, rows: list[dict[str, object]]) -> None:
    """Print the PSNR and SSIM of each method."""
    cells = [(str(row["name"]), _number(row["psnr"], 2), _number(row["ssim"], 4)) for row in rows]
    output.table(title, ("method", "PSNR dB", "SSIM"), cells)


def _number(value: object, decimals: int) -> str:
    return f"{value:.{decimals}f}" if isinstance(value, float) else str(value)


def _default_folder(checkpoint: Path) -> Path:
    """`eval` in the run folder that a checkpoint belongs to."""
    if checkpoint.is_dir():
        return checkpoint / "eval"
    run = checkpoint.parent.parent if checkpoint.parent.name == "checkpoints" else checkpoint.parent
    return run / "eval"


def _named_paths(texts: list[str]) -> dict[str, Path]:
    pairs = [text.partition("=") for text in texts]
    for name, equals, path in pairs:
        if not (name and equals and path):
            raise UsageError(f"--compare {name}{equals}{path}: expected NAME=CHECKPOINT")
    return {name: Path(path) for name, _, path in pairs}
