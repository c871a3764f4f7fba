"""`spk deblur`: restored frames of a user's own recording, without a store."""

import difflib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.console import EXIT_RESUMABLE, DryRun, Json, Out, Output, Quiet, Verbose, counted, human_time
from pipeline.errors import UsageError

if TYPE_CHECKING:
    from model.deblur import DeblurReport


def deblur(
    checkpoint: Annotated[
        Path, typer.Argument(help="A run folder, a checkpoint, or published VRT weights (.pth).")
    ],
    out: Out,
    video: Annotated[
        Path, typer.Option(help="The RGB camera's video, or a folder of its images.", show_default=False)
    ],
    spikes: Annotated[
        Path,
        typer.Option(
            help="The spikes: .dat, .npy or .npz; or a folder with one for each RGB frame.",
            show_default=False,
        ),
    ],
    settings: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KEY=VALUE]...",
            help="How the recording is read: rate_hz=20000 height=250 width=400 window=32 … (as in a manifest); how it"
            " is restored: tile=256 num_frames=5 parallel.device=cpu …",
        ),
    ] = None,
    log: Annotated[
        Path | None, typer.Option(help="When the frames were exposed: a log that spk ingest knows, too.")
    ] = None,
    manifest: Annotated[
        str | None,
        typer.Option("--manifest", "-m", help="A manifest, or the name of a shipped one, of data like this."),
    ] = None,
    sequence: Annotated[
        str | None, typer.Option(help="The recording's name in a log of several; the video's without.")
    ] = None,
    at: Annotated[
        str | None,
        typer.Option(metavar="T,T,…", help="Restore these instants of each exposure: 0.1,0.5,0.9 (0 to 1)."),
    ] = None,
    side_by_side: Annotated[
        bool,
        typer.Option(
            "--side-by-side/--no-side-by-side",
            help="Show blurry, restored and spikes beside each other as well.",
        ),
    ] = True,
    quarantine: Annotated[
        bool,
        typer.Option(
            "--quarantine", help="Leave bad frames out and list them (exit code 3) instead of refusing."
        ),
    ] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on in a folder that is not finished.")] = False,
    dry_run: DryRun = False,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Restore a recording of your own: to a video (-o FILE.mkv is exact, .mp4 for players) or a folder of PNGs."""
    from pipeline.own_settings import OwnFiles, is_setting

    output = Output(as_json=json, quiet=quiet, verbose=verbose)
    told = settings or []
    of_recording = tuple(text for text in told if is_setting(text))
    others = [text for text in told if not is_setting(text)]

    from model.deblur import deblur as run_deblurring
    from model.deblurring.config import DeblurConfig
    from model.deblurring.instants import parse_instants
    from pipeline.config import from_overrides

    _refuse_unknown(others, DeblurConfig)
    config = from_overrides(DeblurConfig, others)
    files = OwnFiles(
        video=video, spikes=spikes, log=log, manifest=manifest, settings=of_recording, sequence=sequence
    )
    try:
        with output.progress() as progress:
            report = run_deblurring(
                checkpoint,
                files,
                out,
                config,
                at=() if at is None else parse_instants(at),
                side_by_side=side_by_side,
                resume=resume,
                quarantine=quarantine,
                dry_run=dry_run,
                progress=progress,
            )
    except KeyboardInterrupt:
        if not (out / "deblur.json").is_file():
            raise
        output.say(f"{out}: stopped; go on with the same command and --resume")
        raise typer.Exit(EXIT_RESUMABLE) from None
    output.say(_summary(report, dry_run=dry_run))
    output.result(report.to_json() | {"dry_run": dry_run})
    output.quarantined(report.quarantined)


def _refuse_unknown(settings: list[str], config: type) -> None:
    """Refuse settings that are about nothing, with what may have been meant."""
    from pipeline.own_settings import GROUPS, SHORT

    known = [*config.__dataclass_fields__, *SHORT, *GROUPS]
    for text in settings:
        key, equals, _ = text.partition("=")
        group = key.partition(".")[0]
        if not equals or group not in known:
            close = difflib.get_close_matches(group, known, n=1)
            hint = f"did you mean {close[0]}?" if close else f"settings are {', '.join(known)}"
            raise UsageError(f"{text}: {'no such setting' if equals else 'expected KEY=VALUE'}", hint)


def _summary(report: "DeblurReport", *, dry_run: bool) -> str:
    there = report.frames - report.written
    amount = counted(report.written, "frame") + (f", {there} are there already" if there else "")
    cut = "" if report.tiling is None else f", tiles of {report.tiling.tile or 'a frame'}"
    how = f" ({report.encoding})" if report.encoding else ""
    beside = f"; side by side: {report.side_by_side}" if report.side_by_side else ""
    if dry_run:
        tiles = cut or ", in tiles as memory allows"
        return f"{report.out}{how}: would restore {amount}{tiles}{beside}"
    return f"{report.out}{how}: restored {amount}{cut}, in {human_time(report.seconds)}{beside}"
