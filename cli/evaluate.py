"""`spk evaluate`: scores, pictures and a report of a trained network."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.console import DryRun, Json, Output, Quiet, Verbose, counted, human_time
from pipeline.errors import UsageError
from pipeline.storage.places import is_remote

if TYPE_CHECKING:
    from model.evaluation.config import EvaluateConfig


def evaluate(
    checkpoint: Annotated[
        Path, typer.Argument(help="A run folder, a checkpoint, or published VRT weights (.pth).")
    ],
    arguments: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[STORE] [KEY=VALUE]...",
            help="The store, if it is not the one trained on, and settings to change.",
        ),
    ] = None,
    split: Annotated[str, typer.Option(help="Which split of the store.")] = "test",
    protocol: Annotated[
        list[str] | None,
        typer.Option(
            help="How scores are made, rgb8-all by default; give several, or all, to score by in one pass."
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Where to write; RUN/eval by default.")
    ] = None,
    compare: Annotated[
        list[str] | None,
        typer.Option(help="NAME=CHECKPOINT: score another network beside it, as vrt=006_….pth."),
    ] = None,
    ablate: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CHANGE",
            help="Restore with other spikes as well: spikes=zero, spikes=shuffle, spikes=shift:±8, spikes=rate:1/2.",
        ),
    ] = None,
    thresholds: Annotated[
        str | None,
        typer.Option(
            metavar="1,2,4", help="Restore the spikes of cameras with so many times the threshold as well."
        ),
    ] = None,
    dry_run: DryRun = False,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Restore every frame of a split, score it, and write tables, pictures and report.html."""
    output = Output(as_json=json, quiet=quiet, verbose=verbose)
    stores = [Path(argument) for argument in arguments or [] if "=" not in argument]
    overrides = [argument for argument in arguments or [] if "=" in argument]
    if len(stores) > 1:
        names = ", ".join(map(str, stores))
        raise UsageError(f"more than one store: {names}", "spk evaluate RUN [STORE] [key=value …]")
    others = _named_paths(compare or [])

    from model.evaluate import evaluate as run_evaluation
    from model.evaluation.config import EvaluateConfig
    from model.evaluation.protocols import expanded
    from pipeline.config import from_overrides

    chosen = [f"protocols={list(expanded(protocol))}"] if protocol else []
    chosen += [f"ablate={ablate}"] if ablate else []
    chosen += [f"thresholds=[{thresholds}]"] if thresholds else []
    config = from_overrides(EvaluateConfig, [f"split={split!r}", *chosen, *overrides])
    store = stores[0] if stores else _store_of(checkpoint)
    folder = out or _default_folder(checkpoint)
    if dry_run:
        _say_plan(output, checkpoint, store, folder, config, others)
        return
    with output.progress() as progress:
        report = run_evaluation(checkpoint, store, folder, config, compare=others, progress=progress)
    for by in report.results.protocols:
        score_table(output, f"{config.split} split, protocol {by.name}", report.results.rows(by), by.metrics)
    found = report.to_json()
    if "spikes" in found:
        _say_worth(output, found["spikes"], config.protocols[0])
    seconds, rate = report.timing["seconds"], report.timing["frames_per_second"]
    output.say(f"took {human_time(seconds)}, {rate:.3g} frames/s")
    output.say(f"report: {report.report}")
    output.result(found)


def _say_worth(output: Output, worth: Mapping[str, Any], protocol: str) -> None:
    """Print how other spikes change the scores."""
    rows = [{"name": name, **values} for name, values in worth["differences"].items()]
    frames = {row["name"]: row.pop("frames") for row in rows}
    metrics = [key for key in rows[0] if key != "name"]
    cells = [
        (row["name"], str(frames[row["name"]]), *(_number(row[m], _decimals(m), "+") for m in metrics))
        for row in rows
    ]
    output.table(
        f"other spikes, difference to restored, protocol {protocol}",
        ("spikes", "frames", *map(_column, metrics)),
        cells,
    )
    if worth["text"]:
        output.say(worth["text"])


def score_table(
    output: Output, title: str, rows: list[dict[str, object]], metrics: Sequence[str] = ("psnr", "ssim")
) -> None:
    """Print what each method scores."""
    cells = [
        (str(row["name"]), *(_number(row[metric], _decimals(metric)) for metric in metrics)) for row in rows
    ]
    output.table(title, ("method", *map(_column, metrics)), cells)


def _column(metric: str) -> str:
    return f"{metric.upper()} dB" if _in_decibels(metric) else metric.upper()


def _decimals(metric: str) -> int:
    return 2 if _in_decibels(metric) else 4


def _in_decibels(metric: str) -> bool:
    return metric.startswith("psnr")


def _number(value: object, decimals: int, sign: str = "") -> str:
    return f"{value:{sign}.{decimals}f}" if isinstance(value, float) else "-"


def _store_of(checkpoint: Path) -> Path:
    """The store that a network was trained on, if it is still where it was."""
    from model.restorer import find_info

    info = find_info(checkpoint)
    store = info.store.get("path")
    if store is None or not (is_remote(store) or Path(store).exists()):
        where = f"the store it was trained on, {store}, is not there" if store else "it names no store"
        raise UsageError(f"{info.path}: {where}", f"name one: spk evaluate {checkpoint} STORE")
    return Path(store)


def _say_plan(
    output: Output,
    checkpoint: Path,
    store: Path,
    folder: Path,
    config: "EvaluateConfig",
    others: Mapping[str, Path],
) -> None:
    from model.evaluation.results import weights_text
    from model.restorer import find_info
    from pipeline.store import open_store

    infos = [find_info(path) for path in (checkpoint, *others.values())]
    opened = open_store(store)
    sequences = opened.sequences(config.split)
    if not sequences:
        there = ", ".join(name for name, members in opened.splits.items() if members)
        raise UsageError(f"{store}: split {config.split!r} has no sequences", f"--split one of: {there}")
    frames = sum(sequence.num_frames for sequence in sequences)
    scored = sum(int(sequence.has_sharp.sum()) for sequence in sequences)
    networks = ", ".join(f"{info.path} ({weights_text(info.step)})" for info in infos)
    output.say(
        f"would restore {counted(frames, 'frame')} of {counted(len(sequences), 'sequence')}, {scored} with"
    )
    if config.ablations:
        output.say(f"and again with other spikes: {', '.join(change.name for change in config.ablations)},")
    output.say(
        f"a sharp frame to compare with, by {networks}; and write {folder / config.protocols[0]}/report.html"
    )
    output.result(
        {
            "protocols": {name: {"psnr": None, "ssim": None, "frames": scored} for name in config.protocols},
            "baselines": {},
            "report": str(folder / config.protocols[0] / "report.html"),
            "sequences": len(sequences),
            "frames": frames,
            "dry_run": True,
        }
    )


def _default_folder(checkpoint: Path) -> Path:
    """`eval` in the run folder that a checkpoint belongs to."""
    if checkpoint.is_dir():
        return checkpoint / "eval"
    run = checkpoint.parent.parent if checkpoint.parent.name == "checkpoints" else checkpoint.parent
    return run / "eval"


def _named_paths(texts: list[str]) -> dict[str, Path]:
    paths: dict[str, Path] = {}
    for text in texts:
        name, _, path = text.partition("=")
        if not (name and path):
            raise UsageError(f"--compare {text}: expected NAME=CHECKPOINT")
        if name in paths:
            raise UsageError(f"--compare {text}: the name {name} is there twice")
        paths[name] = Path(path)
    return paths
