"""`spk demo`: the whole way on generated data, in minutes on a CPU."""

import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from cli.console import Json, Output, Quiet, Verbose, Workers
from cli.evaluate import score_table

PRESET = Path(__file__).resolve().parents[1] / "configs" / "tiny.yaml"
NUM_BINS = 16
FUSED, RGB_ONLY = "fused", "rgb_only"


def demo(
    out: Annotated[Path, typer.Option("--out", "-o", help="Where everything goes.")] = Path("spk-demo"),
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Training settings to change: steps=2000 batch_size=4 …")
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
    store = _make_store(out, seed, workers, output)
    runs = {
        name: _train(out / "runs" / name, name, store, seed, overrides or [], output)
        for name in (RGB_ONLY, FUSED)
    }

    from model.evaluate import EvaluateConfig, evaluate

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


def _make_store(out: Path, seed: int, workers: int, output: Output) -> Path:
    from pipeline.ingest import ingest
    from pipeline.manifest import read_manifest
    from pipeline.scenes import SceneConfig
    from pipeline.simulate import simulate_scenes
    from pipeline.voxelize import voxelize

    raw, store = out / "raw", out / "store"
    output.say(f"filming moving scenes with a spike camera beside an RGB camera into {raw} …")
    with output.progress() as progress:
        simulate_scenes(raw, SceneConfig(), seed=seed, workers=workers, progress=progress)
    output.say(f"ingesting and counting spikes into {store} …")
    with output.progress() as progress:
        ingest(raw, store, read_manifest("simulated"), workers=workers, progress=progress)
        voxelize(store, num_bins=NUM_BINS, workers=workers, progress=progress)
    return store


def _train(run: Path, name: str, store: Path, seed: int, overrides: list[str], output: Output) -> Path:
    from model.train import TrainConfig, train
    from pipeline.config import load_config

    config = load_config(TrainConfig, PRESET, [f"store={store}", f"seed={seed}", *overrides])
    if name == RGB_ONLY:
        config = replace(config, network=replace(config.network, fusion="none"))
    output.say(f"training the {name} network for {config.steps} steps into {run} …")
    with output.progress() as progress:
        train(config, run, resume=(run / "run.json").is_file(), progress=progress)
    return run


def _in_order(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows from the input to the best, with the evaluated network by its name here."""
    named = {row["name"]: row for row in rows}
    named[FUSED] = named.pop("restored") | {"name": FUSED}
    return [named[name] for name in ("blurry", RGB_ONLY, "spike_only", FUSED)]
