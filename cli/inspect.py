"""`spk inspect`: a screenful about a spike file, a store or a run."""

from pathlib import Path
from typing import Annotated, Any

import typer

from cli.console import Json, Output, Quiet, Verbose, human_bytes
from pipeline.errors import UsageError


def inspect(
    path: Annotated[Path, typer.Argument(help="A .dat file, a store or a run folder.")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Also draw a picture, into this PNG.")
    ] = None,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Say what a spike file, a store or a run is, and draw it."""
    output = Output(as_json=json, quiet=quiet, verbose=verbose)
    if (path / "run.json").is_file():
        facts = _inspect_run(path, output)
    elif (path / "zarr.json").is_file():
        facts = _inspect_store(path, output, out)
    elif path.suffix.lower() == ".dat" or path.is_file():
        facts = _inspect_dat(path, output, out)
    elif not path.exists():
        raise UsageError(f"{path}: no such file or directory")
    else:
        raise UsageError(f"{path}: neither a .dat file, nor a store (zarr.json), nor a run (run.json)")
    output.result(facts)


def _inspect_dat(path: Path, output: Output, picture: Path | None) -> dict[str, Any]:
    from pipeline.geometry import rank_geometries
    from pipeline.overview import draw_candidates

    ranked = rank_geometries(path)
    if not ranked:
        raise UsageError(
            f"{path}: its {path.stat().st_size} bytes are no whole number of frames of any common geometry",
            "declare height and width in a manifest: its check says whether they fit",
        )
    rows = [
        (f"{one.height}x{one.width}", str(one.frames), one.bit_order, one.padding, f"{one.score:.3f}")
        for one in ranked
    ]
    output.table(
        f"{path}: {human_bytes(path.stat().st_size)}, smoothness of its mean image when read as",
        ("geometry", "frames", "bits", "padding", "score"),
        rows,
    )
    if picture:
        draw_candidates(path, ranked[:3], picture)
        output.say(f"picture: {picture}")
    keys = ("height", "width", "frames", "bit_order", "padding", "score")
    candidates = [{key: getattr(one, key) for key in keys} for one in ranked]
    return {"kind": "dat", "bytes": path.stat().st_size, "candidates": candidates}


def _inspect_store(path: Path, output: Output, picture: Path | None) -> dict[str, Any]:
    from pipeline.overview import draw_store, store_facts
    from pipeline.store import open_store

    store = open_store(path)
    facts = store_facts(store)
    rows = [
        (f"{s['split']}/{s['name']}", str(s["frames"]), str(s["sharp"]), s["rgb"], s["spikes"], s["exposure"])
        for s in facts["sequences_list"][:20]
    ]
    output.table(
        f"{path}: {store.name}, {facts['sequences']} sequences, {facts['frames']} frames,"
        f" stages {', '.join(store.stages)}",
        ("sequence", "frames", "sharp", "RGB", "spikes", "exposure"),
        rows,
    )
    if len(facts["sequences_list"]) > len(rows):
        output.say(f"and {len(facts['sequences_list']) - len(rows)} more sequences")
    for name, stats in facts["stats"].items():
        output.say(
            f"{name}: {stats['num_bins']} bins, counts {stats['count']['mean']:.3f} ± {stats['count']['std']:.3f},"
            f" log1p {stats['log1p']['mean']:.3f} ± {stats['log1p']['std']:.3f} ({stats['split']} split)"
        )
    output.say(f"fingerprint {store.fingerprint[:16]}")
    if picture:
        draw_store(store, picture)
        output.say(f"picture: {picture}")
    return {key: value for key, value in facts.items() if key != "sequences_list"}


def _inspect_run(path: Path, output: Output) -> dict[str, Any]:
    from model.run_facts import run_facts

    facts = run_facts(path)
    output.table(
        f"{path}: step {facts['step']} of {facts['steps']}",
        ("", "value"),
        [
            (key, str(facts[key]))
            for key in ("loss", "best_psnr", "best_step", "parameters", "device", "store")
        ],
    )
    if facts["checkpoints"]:
        output.say("checkpoints: " + ", ".join(facts["checkpoints"]))
    return facts
