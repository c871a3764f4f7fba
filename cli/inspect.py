"""`spk inspect`: a screenful about a spike file, an alignment log, a store, a run, a checkpoint or a config."""

from pathlib import Path
from typing import Annotated, Any

import typer

from cli.console import EXIT_CHECK_FAILED, Json, Output, Quiet, Verbose, counted, human_bytes
from cli.presets import config_path, preset_names
from cli.run_screen import show_run
from pipeline.errors import FormatError, UsageError
from pipeline.storage.places import is_remote, shown

SHOWN_SEQUENCES = 20
LOG_SUFFIXES = (".csv", ".txt", ".log", ".tsv")
KINDS = {
    ".dat": "dat",
    ".npy": "array",
    ".npz": "array",
    ".safetensors": "checkpoint",
    ".yaml": "config",
    ".yml": "config",
    ".json": "plan",
}
THUMBNAILS = 3
PERIOD = {True: "yes", False: "no", None: "not seen"}
CHECKPOINT_LINES = (
    *("loss", "best_psnr", "best_step", "parameters", "trainable"),
    *("fusion", "instants", "num_bins", "voxels", "scale", "averaged", "store"),
)


def inspect(
    path: Annotated[
        Path,
        typer.Argument(
            help="A .dat, .npy or .npz file, a store, a run folder, a checkpoint, a plan, a config or a preset."
        ),
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KEY=VALUE]...", help="Settings of a config to change, as `spk train` takes them."
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="The PNG for the picture of a .dat, a store or a run. A .dat's goes to NAME-candidates.png in the"
            " current folder without, unless --json is given.",
        ),
    ] = None,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Say what a spike file, a store, a run or a checkpoint is, or what a config costs; draw the first three.

    Exit code 4: files of a run are damaged.
    """
    output = Output(as_json=json, quiet=quiet, verbose=verbose)
    kind = _kind_of(path)
    if overrides and kind != "config":
        raise UsageError(f"{' '.join(overrides)}: settings are of a config, and {path} is a {kind}")
    if out and kind in ("checkpoint", "log", "config", "plan"):
        raise UsageError(f"-o {out}: there is no picture of a {kind}", "leave -o out")
    if kind == "run":
        facts = _inspect_run(path, output, out)
    elif kind == "checkpoint":
        facts = _inspect_checkpoint(path, output)
    elif kind == "store":
        facts = _inspect_store(path, output, out)
    elif kind == "config":
        facts = _inspect_config(path, overrides or [], output)
    elif kind == "plan":
        facts = _inspect_plan(path, output)
    elif kind == "array":
        facts = _inspect_array(path, output, out)
    elif kind == "log":
        facts = _inspect_log(path, output)
    else:
        facts = _inspect_dat(path, output, out)
    output.result(facts)
    if kind == "run" and facts["problems"]:
        raise typer.Exit(EXIT_CHECK_FAILED)


def _kind_of(path: Path) -> str:
    """`run`, `store`, `dat`, `array`, `log`, `checkpoint`, `config` or `plan`, by what it holds and is called.

    Raises:
        UsageError: nothing there, or nothing that can be inspected.
    """
    from pipeline.logs.timing_overview import is_log
    from pipeline.storage.root import WORK

    suffix = path.suffix.lower()
    if is_remote(path):
        return "store"
    if path.is_dir():
        for name, kind in (("run.json", "run"), ("zarr.json", "store"), (WORK, "store")):
            if (path / name).exists():
                return kind
        fix = "give one of the files or folders in it" if any(path.iterdir()) else ""
        raise UsageError(f"{path}: neither a store (no zarr.json) nor a run (no run.json)", fix)
    if str(path) in preset_names():
        return "config"
    if not path.exists():
        raise UsageError(f"{path}: no such file or directory")
    if suffix in KINDS:
        return KINDS[suffix]
    if suffix in LOG_SUFFIXES and is_log(path):
        return "log"
    raise UsageError(
        f"{path}: {suffix or 'no suffix'} is none of a .dat, .npy or .npz, a checkpoint, a config, a plan,"
        " a store and a run"
    )


def _inspect_dat(path: Path, output: Output, picture: Path | None) -> dict[str, Any]:
    from pipeline.overview import draw_candidates
    from pipeline.recognition.geometry import explain_size, rank_geometries

    ranked, size = rank_geometries(path), path.stat().st_size
    if not ranked:
        shown = explain_size(path)
        problem = f"its {size} bytes are no whole number of frames of any common geometry"
        raise FormatError(
            f"{path}: {problem}" + (f"; {shown}" if shown else ""),
            "if it was cut short, copy it again; declare another height and width in a manifest: ingest checks them",
        )
    rows = [
        (
            one.size,
            str(one.frames),
            one.reading.bit_order,
            one.reading.padding,
            PERIOD[one.in_period],
            f"{one.score:.3f}",
        )
        for one in ranked
    ]
    title = f"{path}: {human_bytes(size)}, smoothness of its mean image when read as"
    output.table(title, ("geometry", "frames", "bits", "padding", "frame period", "score"), rows)
    if picture is None and not output.as_json:
        picture = Path(f"{path.stem}-candidates.png")
    if picture:
        draw_candidates(path, ranked[:THUMBNAILS], picture)
        output.say(f"picture: {picture} (rows bottom-up, as usual: if it is upside down, declare flip: none)")
    candidates = [
        {
            "height": one.reading.height,
            "width": one.reading.width,
            "frames": one.frames,
            "bit_order": one.reading.bit_order,
            "padding": one.reading.padding,
            "score": one.score,
            "valid_columns": [list(span) for span in one.reading.columns],
            "in_period": one.in_period,
        }
        for one in ranked
    ]
    return {"kind": "dat", "bytes": size, "candidates": candidates, "picture": picture and str(picture)}


def _inspect_array(path: Path, output: Output, picture: Path | None) -> dict[str, Any]:
    from pipeline.dat import open_spikes
    from pipeline.overview import draw_stream
    from pipeline.recognition.array_axes import detect_axes

    fmt = detect_axes(path)
    stream = open_spikes(path, fmt)
    facts = {
        "key": fmt.key,
        "axes": fmt.axes,
        "frames": len(stream),
        "height": fmt.height,
        "width": fmt.width,
    }
    size = path.stat().st_size
    _fact_table(output, f"{path}: {human_bytes(size)}, spikes as an array", facts, tuple(facts))
    if picture:
        draw_stream(stream, picture)
        output.say(f"picture: {picture}")
    return {"kind": "array", "bytes": size, **facts}


def _inspect_store(path: Path, output: Output, picture: Path | None) -> dict[str, Any]:
    from pipeline.overview import draw_store, store_facts
    from pipeline.store import open_store

    store = open_store(path)
    facts = store_facts(store)
    sequences = facts.pop("sequences_list")
    amount = f"{counted(facts['sequences'], 'sequence')}, {counted(facts['frames'], 'frame')}"
    output.table(
        f"{shown(path)}: {store.name}, {amount}, stages {', '.join(store.stages)}",
        (
            *("sequence", "frames", "runs", "sharp", "RGB", "spikes", "exposure"),
            *("threshold", "R² median, worst"),
        ),
        [
            (
                f"{s['split']}/{s['name']}",
                *(str(s[key]) for key in ("frames", "runs", "sharp", "rgb", "spikes", "exposure")),
                _camera(s["threshold"], s["reset"]),
                "{:.3f}, {:.3f}".format(*s["r2"]) if s["r2"] else "-",
            )
            for s in sequences[:SHOWN_SEQUENCES]
        ],
    )
    if len(sequences) > SHOWN_SEQUENCES:
        output.say(f"and {counted(len(sequences) - SHOWN_SEQUENCES, 'more sequence')}")
    _timing_table(output, facts["timing"])
    for name, stats in facts["stats"].items():
        count, log1p = (f"{stats[key]['mean']:.3f} ± {stats[key]['std']:.3f}" for key in ("count", "log1p"))
        output.say(
            f"{name}: {stats['num_bins']} bins, counts {count}, log1p {log1p} ({stats['split']} split)"
        )
    facts["r2"] = {f"{s['split']}/{s['name']}": s["r2"] for s in sequences if s["r2"]}
    output.say(f"fingerprint {store.fingerprint[:16]}")
    if picture:
        draw_store(store, picture)
        output.say(f"picture: {picture}")
    return facts


def _camera(threshold: float | None, reset: str | None) -> str:
    """Threshold and reset of a spike camera, as far as they are known."""
    return " ".join([f"{threshold:g}" if threshold else "?", reset or ""]).strip()


def _inspect_log(path: Path, output: Output) -> dict[str, Any]:
    from pipeline.logs.timing_overview import log_facts

    facts = log_facts(path)
    amount = f"{counted(facts['rows'], 'exposure')}, {counted(len(facts['timing']), 'sequence')}"
    output.say(f"{path}: alignment log in the dialect {facts['dialect']}: {amount}")
    _timing_table(output, facts["timing"])
    for problem in facts["bad_rows"][:SHOWN_SEQUENCES]:
        output.say(f"line {problem['line']}: {problem['reason']}")
    if len(facts["bad_rows"]) > SHOWN_SEQUENCES:
        output.say(f"and {counted(len(facts['bad_rows']) - SHOWN_SEQUENCES, 'more bad row')}")
    return facts


def _timing_table(output: Output, timings: list[dict[str, Any]]) -> None:
    from pipeline.logs.timing_overview import TIMING_COLUMNS, fault_lines, timing_row

    if not timings:
        return
    output.table("timing", TIMING_COLUMNS, [timing_row(timing) for timing in timings[:SHOWN_SEQUENCES]])
    for line in [line for timing in timings for line in fault_lines(timing)][:SHOWN_SEQUENCES]:
        output.say(line)


def _inspect_run(path: Path, output: Output, picture: Path | None) -> dict[str, Any]:
    from model.run_facts import run_facts
    from model.training.curves import draw_run

    facts = run_facts(path)
    show_run(output, facts)
    if picture:
        draw_run(path, picture)
        output.say(f"picture: {picture}")
    return facts


def _inspect_checkpoint(path: Path, output: Output) -> dict[str, Any]:
    from model.run_facts import checkpoint_facts

    facts = checkpoint_facts(path)
    size = human_bytes(facts["bytes"])
    title = f"{path}: {size}, whole, step {facts['step']} of {facts['steps']}"
    _fact_table(output, title, facts, CHECKPOINT_LINES)
    return facts


def _inspect_config(path: Path, overrides: list[str], output: Output) -> dict[str, Any]:
    from model.config_facts import config_facts
    from model.training.config import TrainConfig
    from pipeline.config import load_config

    facts = config_facts(load_config(TrainConfig, config_path(path), overrides, {"store": "STORE"}))
    total, step = facts["flops"]["forward"], facts["flops"]
    clip = "batch {batch}, {frames} frames of {height}x{width}".format(**facts["clip"])
    where = f"{facts['device']}, {facts['precision']}"
    output.table(
        f"{path}: {facts['parameters'] / 1e6:.2f} M parameters; {clip}; {where}",
        ("part", "parameters", "GFLOP forward", "share", "MB saved for backward"),
        [
            (
                part["name"],
                str(part["parameters"]),
                _figure(part["flops"] / 1e9),
                f"{part['flops'] / total:.1%}",
                _figure(part["saved_bytes"] / 1e6),
            )
            for part in facts["parts"]
        ],
    )
    stages = [part for part in facts["parts"] if "pieces" in part]
    for names in dict.fromkeys(tuple(piece["name"] for piece in part["pieces"]) for part in stages):
        rows = [
            (part["name"], *(_figure(piece["flops"] / 1e9) for piece in part["pieces"]))
            for part in stages
            if tuple(piece["name"] for piece in part["pieces"]) == names
        ]
        output.table("GFLOP forward within", ("", *names), rows)
    saved, recomputed = facts["saved_bytes"], ", ".join(map(str, facts["checkpoint_stages"]))
    output.say(f"forward {_figure(total / 1e12)} TFLOP (matrix products, convolutions, attention)")
    output.say(
        f"training step {step['step'] / 1e12:.2f} TFLOP, keeps {saved['step'] / 1e9:.1f} GB for backward"
    )
    if recomputed:
        output.say(
            f"with stages {recomputed} checkpointed {_figure(step['step_checkpointed'] / 1e12)} TFLOP, "
            f"{_figure(saved['step_checkpointed'] / 1e9)} GB"
        )
    if facts["num_bins"]:
        of = f"of {facts['store']}" if facts["store"] else "assumed, as there is no store to ask"
        output.say(f"voxel grids: {facts['num_bins']} bins {of}")
    return facts


def _inspect_plan(path: Path, output: Output) -> dict[str, Any]:
    from cli.plan import show_plan
    from model.planning.plan import read_plan

    plan = read_plan(path)
    output.say(f"{path}: planned {plan.made} for {plan.store.path}")
    show_plan(output, plan)
    return plan.to_json()


def _fact_table(output: Output, title: str, facts: dict[str, Any], keys: tuple[str, ...]) -> None:
    output.table(title, ("", "value"), [(key, _shown(facts[key])) for key in keys if facts[key] is not None])


def _shown(value: object) -> str:
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def _figure(value: float) -> str:
    """Three significant digits, without an exponent."""
    return f"{value:.0f}" if value >= 100 else f"{value:#.3g}"
