"""`spk preview`: what a spike camera saw, as a PNG or an animated GIF."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from cli.console import Json, Out, Output, Quiet, Verbose, counted
from pipeline.errors import UsageError
from pipeline.storage.places import is_remote


def preview(
    path: Annotated[Path, typer.Argument(help="A store, or a spike file: .dat, .npy, .npz.")],
    out: Out,
    settings: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KEY=VALUE]...",
            help="How to read a spike file: height=360 width=640 bit_order=msb …; found from its content without.",
        ),
    ] = None,
    method: Annotated[
        Literal["tfp", "tfi", "mean"],
        typer.Option(
            help="tfp: mean of 2h+1 frames; tfi: interval between two spikes; mean: of an exposure or --window."
        ),
    ] = "tfp",
    half_window: Annotated[int, typer.Option(min=0, help="h of tfp.")] = 16,
    window: Annotated[
        int | None, typer.Option(min=1, help="Frames of a mean, where there are no exposures.")
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(help="Light of one spike; from the store or camera.yaml where they tell, else 2."),
    ] = None,
    at: Annotated[
        list[int] | None, typer.Option(help="Picture this frame; again for more. Alone: bare pixels.")
    ] = None,
    start: Annotated[int, typer.Option(min=0, help="First frame to picture.")] = 0,
    stop: Annotated[int | None, typer.Option(min=1, help="Frame to stop before.")] = None,
    every: Annotated[int | None, typer.Option(min=1, help="Frames (mean: windows) between pictures.")] = None,
    fps: Annotated[float, typer.Option(min=0.01, max=50.0, help="Pictures per second of a GIF.")] = 20.0,
    auto_contrast: Annotated[
        bool, typer.Option("--auto-contrast", help="The brightest half percent is white, instead of 1.0.")
    ] = False,
    sequence: Annotated[
        str | None, typer.Option(help="SPLIT/NAME in a store; its first one without.")
    ] = None,
    format_file: Annotated[
        Path | None, typer.Option("--format", help="YAML file that says how to read a spike file.")
    ] = None,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Draw the light that spikes tell of: a PNG of some instants, or a GIF of them all."""
    from pipeline.camera_facts import reset_of
    from pipeline.previews.playback import Playback, draw_animation, draw_strip, usual_white
    from pipeline.previews.spike_source import open_file, open_sequence

    output = Output(as_json=json, quiet=quiet, verbose=verbose)
    is_still = _is_still(out)
    _refuse_contradictions(path, settings, format_file, sequence)
    if at and (method == "mean" or start or stop or every):
        raise UsageError("--at goes with tfp and tfi, and without --start, --stop and --every")
    is_store = _is_store(path)
    source = open_sequence(path, sequence) if is_store else open_file(path, settings or [], format_file)
    light, origin = _threshold(threshold, source.camera)
    playback = Playback(source=source, method=method, threshold=light, half_window=half_window, window=window)
    moments = at or _spaced(playback.moments(start, stop), every, is_still)
    white = usual_white(playback, moments) if auto_contrast else 1.0
    with output.progress() as progress:
        if is_still:
            bounds = draw_strip(out, playback, moments, white, progress)
        else:
            bounds = draw_animation(out, playback, moments, fps, white, progress)
    output.say(f"{source.name}: {source.how}")
    pictures = counted(len(moments), "picture")
    output.say(f"{pictures} of {method}: {origin} threshold {light:g} x rate of spikes, {white:.3g} is white")
    if bounds:
        pixels = len(moments) * source.shape[1] * source.shape[2]
        output.say(
            f"{bounds} of {pixels} pixels lie in no interval and show the most light they can have had"
        )
    if reset_of(source.camera) == "zero":
        output.say("this camera resets to zero: bright light is shown darker than it was")
    output.say(f"picture: {out}")
    output.result(
        {
            "picture": str(out),
            "method": method,
            "pictures": len(moments),
            "first": int(moments[0]),
            "last": int(moments[-1]),
            "threshold": light,
            "threshold_is": origin,
            "white": white,
            "shape": list(source.shape),
            "read": source.how,
            "bounds": bounds,
        }
    )


def _is_store(path: Path) -> bool:
    return is_remote(path) or path.is_dir()


def _is_still(out: Path) -> bool:
    """Whether to write a PNG, not a GIF."""
    suffix = out.suffix.lower()
    if suffix not in (".png", ".gif"):
        raise UsageError(
            f"-o {out}: {suffix or 'no suffix'} is neither .png nor .gif",
            "name it preview.png or preview.gif",
        )
    return suffix == ".png"


def _refuse_contradictions(
    path: Path, settings: list[str] | None, format_file: Path | None, sequence: str | None
) -> None:
    if not (path.exists() or is_remote(path)):
        raise UsageError(f"{path}: no such file or directory")
    if _is_store(path) and (settings or format_file):
        raise UsageError(
            f"{path}: a store knows how its spikes are read", "leave out the format, or name a file"
        )
    if not _is_store(path) and sequence:
        raise UsageError(f"{path}: --sequence goes with a store, this is a file")


def _threshold(given: float | None, camera: Mapping[str, Any]) -> tuple[float, str]:
    """The light of one spike, and whether it is given, known of the camera, or assumed."""
    from pipeline.camera_facts import threshold_of
    from pipeline.previews.playback import DEFAULT_THRESHOLD

    if given is not None and not 0 < given < float("inf"):
        raise UsageError(f"--threshold {given}: expected a number above 0")
    if given is not None:
        return given, "given"
    known = threshold_of(camera)
    return (DEFAULT_THRESHOLD, "assumed") if known is None else (known, "known")


def _spaced(moments: Sequence[int], every: int | None, is_still: bool) -> Sequence[int]:
    """Those of the moments to picture: every n-th, or a few for a PNG and many for a GIF."""
    from pipeline.previews.playback import MOST_IN_GIF, STRIP, spread

    if every is None and is_still:
        return spread(moments, STRIP)
    return moments[:: every or -(-len(moments) // MOST_IN_GIF)]
