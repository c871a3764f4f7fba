"""`spk demo`: the whole way on generated data, in minutes on a CPU."""

import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.console import EXIT_RESUMABLE, Json, Output, Quiet, Verbose, Workers
from cli.evaluate import score_table
from cli.presets import config_path
from cli.side_by_side import train_side_by_side

if TYPE_CHECKING:
    from model.training.config import TrainConfig

PRESET = Path("tiny")
NUM_BINS = 16
FUSED, RGB_ONLY = "fused", "rgb_only"
SCENES = "scenes."
"""Beginning of the overrides that are about the generated data, not about training."""


def demo(
    out: Annotated[Path, typer.Option("--out", "-o", help="Where everything goes.")] = Path("spk-demo"),
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KEY=VALUE]...",
            help="Settings to change: of training, steps=2000 batch_size=4 …; of the generated data,"
            f" {SCENES}train=48 {SCENES}rig.scale=2 …",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Other seeds give other scenes and other weights.")] = 0,
    workers: Workers = 2,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Simulate, ingest, voxelize, train with and without spikes, evaluate: a first look in minutes."""
    started = time.monotonic()
    output = Output(as_json=json, quiet=quiet, verbose=verbose)
    of_scenes = [text.removeprefix(SCENES) for text in overrides or [] if text.startswith(SCENES)]
    of_training = [text for text in overrides or [] if not text.startswith(SCENES)]
    store = out / "store"
    configs = {name: _read_config(name, store, seed, of_training) for name in (RGB_ONLY, FUSED)}
    _make_store(out / "raw", store, seed, of_scenes, workers, output)
    runs = {name: out / "runs" / name for name in configs}
    _train(runs, configs, output)

    from model.evaluate import evaluate
    from model.evaluation.config import EvaluateConfig

    output.say("evaluating on sequences that no training saw …")
    with output.progress() as progress:
        report = evaluate(
            runs[FUSED],
            store,
            out / "eval",
            EvaluateConfig(),
            compare={RGB_ONLY: runs[RGB_ONLY]},
            progress=progress,
        )
    rows = _in_order(report.rows)
    seconds = time.monotonic() - started
    score_table(output, "unseen test sequences, protocol rgb8-all", rows)
    output.say(f"took {seconds:.0f} s; pictures and tables: {report.report}")
    output.result(
        {
            "rows": rows,
            "seconds": round(seconds, 1),
            "store": str(store),
            "runs": {name: str(run) for name, run in runs.items()},
            "report": str(report.report),
        }
    )


def _make_store(
    raw: Path, store: Path, seed: int, overrides: list[str], workers: int, output: Output
) -> None:
    from pipeline.config import from_overrides
    from pipeline.ingest import ingest
    from pipeline.manifest import read_manifest
    from pipeline.simulate import simulate_scenes
    from pipeline.simulation.scenes import SceneConfig
    from pipeline.voxelize import voxelize

    scenes = from_overrides(SceneConfig, overrides)
    output.say(f"filming moving scenes with a spike camera beside an RGB camera into {raw} …")
    with output.progress() as progress:
        simulate_scenes(raw, scenes, seed=seed, workers=workers, progress=progress)
    output.say(f"ingesting and counting spikes into {store} …")
    with output.progress() as progress:
        ingest(raw, store, read_manifest("simulated"), workers=workers, progress=progress)
        voxelize(store, num_bins=NUM_BINS, workers=workers, progress=progress)


def _read_config(name: str, store: Path, seed: int, overrides: list[str]) -> "TrainConfig":
    from model.training.config import TrainConfig
    from pipeline.config import load_config

    config = load_config(
        TrainConfig, config_path(PRESET), [f"store={str(store)!r}", f"seed={seed}", *overrides]
    )
    if name == RGB_ONLY:
        config = replace(config, network=replace(config.network, fusion="none"))
    return config


def _train(runs: Mapping[str, Path], configs: Mapping[str, "TrainConfig"], output: Output) -> None:
    from pipeline.config import to_plain
    from pipeline.files import write_atomic
    from pipeline.yaml_files import dump_yaml

    arguments = {}
    for name, run in runs.items():
        settings = run.with_suffix(".yaml")
        write_atomic(settings, dump_yaml(to_plain(configs[name])))
        arguments[run] = [str(settings)]
    steps = configs[FUSED].steps
    output.say(f"training {' and '.join(runs)} side by side for {steps} steps into {runs[FUSED].parent} …")
    with output.progress() as progress:
        finished = train_side_by_side(arguments, steps, progress)
    if not finished:
        output.say("stopped; the same command again goes on from here")
        raise typer.Exit(EXIT_RESUMABLE)


def _in_order(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows from the input to the best, with the evaluated network by its name here."""
    named = {row["name"]: row for row in rows}
    named[FUSED] = named.pop("restored") | {"name": FUSED}
    return [named[name] for name in ("blurry", RGB_ONLY, "spike_only", FUSED)]
