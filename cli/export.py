"""`spk export`: a trained network as one file that runs without this program."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.console import DryRun, Json, Output, Quiet, Verbose, human_bytes, human_time
from pipeline.errors import UsageError

if TYPE_CHECKING:
    from model.export import ExportReport


def export(
    checkpoint: Annotated[
        Path, typer.Argument(help="A run folder, a checkpoint, or published VRT weights (.pth).")
    ],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="FILE.pt2 for torch.export, or FILE.onnx.", show_default=False)
    ],
    frames: Annotated[
        int | None, typer.Option(min=1, help="Of a clip; as in training by default.", show_default=False)
    ] = None,
    size: Annotated[str, typer.Option(metavar="HxW", help="Rows and columns of the RGB frames.")] = "256x256",
    opset: Annotated[
        int | None,
        typer.Option(
            min=18, help="Version of ONNX's operators; PyTorch's choice by default.", show_default=False
        ),
    ] = None,
    store: Annotated[
        Path | None,
        typer.Option(
            help="To compare on a recorded clip; that of the training by default.", show_default=False
        ),
    ] = None,
    tolerance: Annotated[
        float | None,
        typer.Option(
            min=0.0, help="Largest difference from the network, in parts of white; 0.001 by default."
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file that is there.")] = False,
    dry_run: DryRun = False,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Write a network with its normalization as one program, checked against the network and timed beside it."""
    output = Output(as_json=json, quiet=quiet, verbose=verbose)
    sides = _size(size)

    from model.export import TOLERANCE, ExportConfig
    from model.export import export as run_export

    config = ExportConfig(
        frames=frames, size=sides, opset=opset, tolerance=TOLERANCE if tolerance is None else tolerance
    )
    with output.progress() as progress:
        report = run_export(
            checkpoint, out, config, store=store, overwrite=overwrite, dry_run=dry_run, progress=progress
        )
    _show(output, report, dry_run)
    output.result(report.to_json() | {"dry_run": dry_run})


def _size(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"([1-9]\d*)[x×]([1-9]\d*)", text)
    if found is None:
        raise UsageError(f"--size {text}: not rows x columns", "--size 256x256")
    return int(found[1]), int(found[2])


def _show(output: Output, report: "ExportReport", dry_run: bool) -> None:
    about = report.about
    shapes = [
        (
            name,
            "in" if name in about["inputs"] else "out",
            "x".join(map(str, one["shape"])),
            one["dtype"],
            one["meaning"],
        )
        for name, one in {**about["inputs"], **about["outputs"]}.items()
    ]
    made_of = f"{about['checkpoint']['name']} (step {about['checkpoint']['step']})"
    title = f"{made_of} as {report.file}, for clips of this size alone"
    output.table(title, ("tensor", "", "shape", "type", "what it holds"), shapes)
    if report.no_real_clip:
        output.say(f"no recorded clip to compare on: {report.no_real_clip}")
    if dry_run:
        output.say("dry run: nothing was traced or written")
        return
    for agreement in report.agreements:
        output.say(
            f"{agreement.clip} clip: differs from the network by at most {agreement.max_difference:.2g} of white, "
            f"{agreement.mean_difference:.2g} on average"
        )
    timing = report.timing
    assert timing is not None, "only a dry run has none"
    engine = "onnxruntime" if report.format == "onnx" else "torch.export"
    output.say(
        f"a clip takes the network {human_time(timing.network_s)}, the program {human_time(timing.program_s)} in "
        f"{engine}: {timing.ratio:.2f} times as long (medians in turns, CPU)"
    )
    output.say(f"{report.file}: {human_bytes(report.num_bytes)}")
