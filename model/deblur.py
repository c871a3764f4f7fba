"""The verb `deblur`: a checkpoint and a user's own recording to restored frames, without a store."""

import contextlib
import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from model.checkpoint import CheckpointInfo, versions
from model.deblurring.config import DeblurConfig
from model.deblurring.facts import frame_facts, identity_of, shown_rate_hz
from model.deblurring.frames import Panels, restored_frames
from model.deblurring.instants import at_instant, instants_of, names_at
from model.deblurring.outputs import SIDE_BY_SIDE, FrameFolder, Output, VideoFile, side_by_side_of
from model.deblurring.record import RECORD, begin_folder, begin_video, write_record
from model.deblurring.room import fit_tiling
from model.parallel import device_name, parallel
from model.planning.device import free_bytes
from model.repeatable import inference
from model.restorer import Restorer, find_info, load_restorer
from model.shortage import is_out_of_memory
from model.tiling import Tiling
from pipeline.config import build, to_plain
from pipeline.errors import SpkError
from pipeline.machine import peak_memory_bytes
from pipeline.own_recording import LightCheck, OwnRecording, open_own_recording
from pipeline.own_settings import OwnFiles
from pipeline.reports import Progress, Quarantined, no_progress
from pipeline.storage.root import program_version
from pipeline.video_writer import encoding_of

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class DeblurReport:
    """What was restored, and where it is.

    Attributes:
        frames: of the recording.
        written: those restored now; the others were there already.
        side_by_side: the folder or video that compares; None where none was wanted.
        tiling: how frames were cut; None in a dry run that leaves that to be found.
        encoding: of the video; None for PNG files.
    """

    out: Path
    record: Path
    frames: int
    written: int
    side_by_side: Path | None
    tiling: Tiling | None
    light: LightCheck
    assumed: tuple[str, ...]
    quarantined: tuple[Quarantined, ...]
    encoding: str | None
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """The stable `--json` object."""
        return {
            "out": str(self.out),
            "record": str(self.record),
            "side_by_side": str(self.side_by_side) if self.side_by_side else None,
            "frames": self.frames,
            "written": self.written,
            "tile": self.tiling.tile if self.tiling else None,
            "num_frames": self.tiling.num_frames if self.tiling else None,
            "physics": self.light.to_json(),
            "assumed": list(self.assumed),
            "quarantined": [asdict(problem) for problem in self.quarantined],
            "encoding": self.encoding,
            "seconds": self.seconds,
            "frames_per_second": self.written / self.seconds if self.seconds else None,
        }


def deblur(
    checkpoint: Path,
    files: OwnFiles,
    out: Path,
    config: DeblurConfig | None = None,
    *,
    at: Sequence[float] = (),
    side_by_side: bool = True,
    resume: bool = False,
    quarantine: bool = False,
    dry_run: bool = False,
    progress: Progress = no_progress,
) -> DeblurReport:
    """Restore every frame of a recording.

    Args:
        checkpoint: a file, or a run folder.
        out: a video to write, whole or not at all; or a folder of PNG files, new or empty unless `resume`.
        at: instants of each exposure to restore, from 0 to 1, in order; without, the one the network was trained on.
        side_by_side: show blurry, restored and spikes beside each other, in files of their own.
        resume: go on in a folder where an interrupted restoration stopped; the files become the same to the bit.
        quarantine: leave out frames without a usable exposure, and report them, instead of refusing.
        dry_run: examine everything, and write nothing.

    Raises:
        UsageError: `out` holds something else; nothing says when frames were exposed; the network knows no instants.
        FormatError, AlignmentError: the recording is not what it is said to be.
        CheckpointError: the checkpoint cannot be used, or gives values that are not finite.
        SpkError: out of memory, even with the smallest tiles.
    """
    started, config, encoding = time.monotonic(), config or DeblurConfig(), encoding_of(out)
    info = find_info(checkpoint)
    instants = instants_of(info, at)
    recording = open_own_recording(files, quarantine=quarantine)
    identity = identity_of(info, files, recording, config, at, side_by_side=side_by_side)
    before = None
    if encoding:
        begin_video(out, *([side_by_side_of(out)] if side_by_side else []), resume=resume)
    else:
        before = begin_folder(out, identity, resume=resume)
    light = recording.check_light()
    _tell(info, files, recording, light)
    output: Output
    if encoding:
        path, pictures = out.with_name(f"{out.stem}.{RECORD}"), side_by_side_of(out)
        output = VideoFile(out, shown_rate_hz(recording, config) * len(instants))
    else:
        path, pictures, names = out / RECORD, out / SIDE_BY_SIDE, names_at(recording.frames, at)
        output = FrameFolder(out, names, side_by_side=side_by_side)
    to_do = recording.num_frames - output.done
    cut = (before or {}).get("tiling")
    tiling = build(Tiling, cut, f"{path}: tiling") if cut else None
    is_finished = not to_do and (before or {}).get("finished") is True
    record: dict[str, Any] = {
        "spk": program_version(),
        "checkpoint_file": str(info.path.resolve()),
        **identity,
        "assumed": list(recording.setup.assumed),
        "physics": light.to_json(),
        "left_out": [asdict(problem) for problem in recording.problems],
    }
    if not is_finished and not dry_run:
        with parallel(config.parallel) as place, inference(), _explained_memory():
            restorer = load_restorer(info.path, place)
            tiling = tiling or _fitted(recording, restorer, config, instants[0])
            record["tiling"] = to_plain(tiling)
            if not encoding:
                write_record(path, record | {"finished": False})
            with output:
                panels = Panels(recording) if side_by_side else None
                for index, images in restored_frames(recording, restorer, tiling, instants, output.done):
                    shown = zip(images, instants, strict=True)
                    pictured = [panels.picture(index, *one) for one in shown] if panels else []
                    output.add(index, images, pictured)
                    progress(index + 1, recording.num_frames, recording.frames[index])
        record |= {
            "finished": True,
            "encoding": str(encoding or "PNG"),
            "restored": to_do,
            "seconds": round(time.monotonic() - started, 3),
            "peak_bytes": peak_memory_bytes(),
            "versions": versions() | {"device": device_name(place.device)},
            "frames": frame_facts(recording, instants),
        }
        write_record(path, record)
    return DeblurReport(
        out=out,
        record=path,
        frames=recording.num_frames,
        written=to_do,
        side_by_side=pictures if side_by_side else None,
        tiling=tiling,
        light=light,
        assumed=recording.setup.assumed,
        quarantined=recording.problems,
        encoding=str(encoding) if encoding else None,
        seconds=time.monotonic() - started,
    )


def _tell(info: CheckpointInfo, files: OwnFiles, recording: OwnRecording, light: LightCheck) -> None:
    """Warn of what was assumed, and of what makes a good result unlikely."""
    for line in recording.setup.assumed:
        logger.warning("assumed: %s", line)
    if light.cause:
        logger.warning(
            "%s: frames do not fit the spikes (median R² %.2f): %s", files.video, light.median_r2, light.cause
        )
    if info.normalization is not None and info.scale != recording.scale:
        logger.warning(
            "%s was trained at scale %d; %s has scale %d", info.path, info.scale, files.video, recording.scale
        )


def _fitted(
    recording: OwnRecording, restorer: Restorer, config: DeblurConfig, instant: float | None
) -> Tiling:
    """How to cut the recording: as told, or as memory allows."""
    tiling, scale = config.tiling(restorer.num_frames), recording.scale
    tiling.require_scale(scale, "the recording")
    if config.tile != "auto":
        return tiling
    return fit_tiling(
        at_instant(restorer, instant),
        recording.blurry,
        recording.voxels(restorer.info.num_bins) if restorer.takes_spikes else None,
        tiling,
        scale=scale,
        device=restorer.place.device,
        free_bytes=free_bytes(restorer.place.device),
        shorten=config.num_frames is None,
    )


@contextlib.contextmanager
def _explained_memory() -> Iterator[None]:
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise SpkError(
            f"out of memory even with tiles of 64 pixels: {error}",
            "num_frames=3, or parallel.precision=bf16; or where there is more memory",
        ) from error
