"""The verb `evaluate`: a checkpoint and a store to scores, pictures and a report."""

import contextlib
import json
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from model.checkpoint import versions
from model.evaluation.judge import BLURRY, RESERVED, RESTORED, SPIKE_ONLY, Entrant, judge_sequence
from model.evaluation.perceptual import LPIPS, load_protocols
from model.evaluation.pictures import Album, middle_frames, panels
from model.evaluation.protocols import DEFAULT, PROTOCOLS, Protocol
from model.evaluation.results import Results
from model.evaluation.scores import FrameScore, mean_score
from model.evaluation.sequence_log import average_line, sequence_line, sequence_log
from model.evaluation.timing import Timing
from model.parallel import Parallel, ParallelConfig, parallel
from model.report.document import report_page
from model.restorer import Restorer, load_restorer
from model.tiling import Tiling
from pipeline.config import to_plain
from pipeline.errors import SpkError, UsageError
from pipeline.files import write_atomic
from pipeline.images import write_png
from pipeline.reports import Progress, no_progress
from pipeline.store import Sequence, Store, open_store

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluateConfig:
    """What to evaluate on, and how to cut it.

    Attributes:
        split: of the store.
        voxels: name of the voxel grids; None takes those the network was trained on.
        protocols: how scores are made; pictures and plots go by the first.
        lpips_weights: the files that protocols lpips-alex and lpips-vgg need: of the network, and of the channels.
        tile: side of a tile in RGB pixels, a multiple of 8 and of the scale; None restores whole frames.
        overlap: RGB pixels that neighbouring tiles share.
        num_frames: frames of a clip; None takes as many as in training.
        overlap_frames: frames that neighbouring clips share; None takes 2, or half of a shorter clip.
        pictures: most middle frames, and most worst frames, that are shown.
        parallel: device and precision.
    """

    split: str = "test"
    voxels: str | None = None
    protocols: tuple[str, ...] = (DEFAULT,)
    lpips_weights: tuple[Path, ...] = ()
    tile: int | None = 256
    overlap: int = 32
    num_frames: int | None = None
    overlap_frames: int | None = None
    pictures: int = 8
    parallel: ParallelConfig = field(default_factory=ParallelConfig)

    def __post_init__(self) -> None:
        known = (*PROTOCOLS, *LPIPS)
        unknown = [name for name in self.protocols if name not in known]
        if unknown or len(set(self.protocols)) < max(1, len(self.protocols)):
            raise ValueError(
                f"protocols {list(self.protocols)}: expected different ones of {', '.join(known)}"
            )
        needing = [name for name in self.protocols if name in LPIPS]
        if needing and not self.lpips_weights:
            raise ValueError(
                f"protocol {needing[0]} needs weights: lpips_weights=[FILE, FILE], of the network and the channels"
            )
        if self.lpips_weights and not needing:
            raise ValueError(f"lpips_weights is set, but protocols has none of {', '.join(LPIPS)}")
        if self.pictures < 1:
            raise ValueError(f"pictures {self.pictures} is below 1")
        self.tiling(self.num_frames or max(Tiling().num_frames, 2 * (self.overlap_frames or 0)))

    @property
    def chosen(self) -> tuple[Protocol, ...]:
        """The protocols themselves; reads the weights of those that need some."""
        return load_protocols(self.protocols, self.lpips_weights)

    def tiling(self, trained_frames: int) -> Tiling:
        """How to cut sequences for a network that was trained on clips of `trained_frames`."""
        num_frames = trained_frames if self.num_frames is None else self.num_frames
        overlap_frames = min(2, num_frames // 2) if self.overlap_frames is None else self.overlap_frames
        return Tiling(
            tile=self.tile, overlap=self.overlap, num_frames=num_frames, overlap_frames=overlap_frames
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluateReport:
    """What was found, how fast, and where it is written."""

    results: Results
    report: Path
    timing: Mapping[str, float]

    @property
    def protocols(self) -> dict[str, dict[str, Any]]:
        """Means of the restored frames, by protocol."""
        return {
            protocol.name: self.results.means(protocol)[RESTORED].to_json()
            for protocol in self.results.protocols
        }

    @property
    def baselines(self) -> dict[str, dict[str, Any]]:
        """Means of the other methods under the first protocol."""
        return {name: mean.to_json() for name, mean in self.results.means().items() if name != RESTORED}

    @property
    def rows(self) -> list[dict[str, Any]]:
        """`name`, `psnr` and `ssim` of every method by the first protocol, `restored` first."""
        return self.results.rows()

    def to_json(self) -> dict[str, Any]:
        """The stable `--json` object."""
        return {
            "protocols": self.protocols,
            "baselines": self.baselines,
            "report": str(self.report),
            "timing": dict(self.timing),
        }


def evaluate(
    checkpoint: Path,
    store: Path,
    out: Path,
    config: EvaluateConfig | None = None,
    *,
    compare: Mapping[str, Path] | None = None,
    progress: Progress = no_progress,
) -> EvaluateReport:
    """Restore and score every frame of a split, and write tables, pictures and the report.

    Writes `<out>/<protocol>/{summary.json, per_sequence.csv, per_frame.csv, log.txt}` for each protocol, `report.html`
    beside those of the first, `<out>/samples/*.png`, and `<out>/timing.json`: all else is the same for the same input.

    Args:
        checkpoint: a file, or a run folder.
        store: with the voxel grids the network takes.
        out: the folder to write to; files of the same names are replaced.
        compare: more checkpoints to score beside it, by the name they get in the tables.

    Raises:
        UsageError: nothing to evaluate, or network and store do not fit each other.
        CheckpointError: a checkpoint cannot be used, or gives values that are not finite.
        StoreError: the store is damaged or lacks voxel grids.
    """
    config = config or EvaluateConfig()
    protocols = config.chosen
    opened = open_store(store)
    sequences = _sequences(opened, config.split)
    paths = {RESTORED: checkpoint} | _checked_names(compare or {})
    with parallel(config.parallel) as place, _repeatable():
        entrants = {
            name: _entrant(load_restorer(path, place), opened, sequences[0], config)
            for name, path in paths.items()
        }
        voxels = _voxels(opened, entrants[RESTORED], config)
        album = Album(
            config.pictures, middle_frames([(s.name, s.num_frames) for s in sequences], config.pictures)
        )
        timing = Timing()
        scores = _judge(sequences, entrants, voxels, opened.scale, place, album, protocols, timing, progress)
        timed = timing.to_json() | {"peak_memory_bytes": place.peak_memory_bytes()}
    results = Results(
        split=config.split,
        protocols=protocols,
        methods=(RESTORED, *(name for name in paths if name != RESTORED), SPIKE_ONLY, BLURRY),
        frames={sequence.name: sequence.num_frames for sequence in sequences},
        scores=tuple(scores),
        provenance=_provenance(entrants, opened, config, place),
    )
    for protocol in protocols:
        if results.scores and not results.scores_by(protocol):
            logger.warning("protocol %s takes none of these frames: its definition says which", protocol.name)
    logger.info(average_line(results.means()[RESTORED]))
    return EvaluateReport(results=results, report=_write(out, results, album, timed), timing=timed)


@contextlib.contextmanager
def _repeatable() -> Iterator[None]:
    """No gradients, and on CUDA the same numbers every time, at full float32 precision unless asked otherwise."""
    flags = torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)
    with torch.inference_mode(), flags:
        yield


def _sequences(store: Store, split: str) -> list[Sequence]:
    sequences = store.sequences(split)
    there = {name: len(members) for name, members in store.splits.items() if members}
    if not sequences:
        listed = ", ".join(f"{name} ({n} sequence{'' if n == 1 else 's'})" for name, n in there.items())
        raise UsageError(
            f"{store.place}: split {split!r} has no sequences; there are: {listed or 'none at all'}",
            f"--split {next(iter(there))}" if there else "ingest some recordings first",
        )
    without = [sequence.name for sequence in sequences if sequence.blurry is None]
    if without:
        raise UsageError(
            f"{store.place}: {split}/{without[0]} has no blurry frames, so there is nothing to restore",
            "ingest a data set with RGB frames, or set blurry_from_spikes in its manifest",
        )
    return sequences


def _checked_names(compare: Mapping[str, Path]) -> dict[str, Path]:
    taken = [name for name in compare if name in RESERVED or not name]
    if taken:
        raise UsageError(f"compare: {taken[0]!r} is taken; choose another name than {', '.join(RESERVED)}")
    return dict(compare)


def _entrant(restorer: Restorer, store: Store, sequence: Sequence, config: EvaluateConfig) -> Entrant:
    """Match a network with the store, before anything is computed."""
    path, scale = restorer.info.path, store.scale
    tiling = config.tiling(restorer.num_frames)
    if tiling.tile is not None and tiling.tile % scale:
        fix = f"tile={tiling.tile // (8 * scale) * 8 * scale or 8 * scale}"
        raise UsageError(f"tile {tiling.tile} is not a multiple of {store.place}'s scale {scale}", fix)
    if not restorer.takes_spikes:
        return Entrant(restorer=restorer, voxels=None, tiling=tiling)
    voxels = store.voxel_name(config.voxels or restorer.info.voxels)
    bins = sequence.voxels(voxels).shape[1]
    if bins != restorer.info.num_bins:
        wanted = restorer.info.num_bins
        raise UsageError(
            f"{path}: takes voxel grids of {wanted} bins; {voxels} of {store.place} has {bins}",
            f"spk voxelize {store.place} --bins {wanted} --name k{wanted}, then voxels=k{wanted}",
        )
    if restorer.info.scale != scale:
        logger.warning(
            "%s was trained at scale %d; %s has scale %d", path, restorer.info.scale, store.path, scale
        )
    return Entrant(restorer=restorer, voxels=voxels, tiling=tiling)


def _voxels(store: Store, entrant: Entrant, config: EvaluateConfig) -> str:
    """The voxel grids for the spike-only estimate: the network's; any for a network that takes none."""
    wanted = config.voxels or entrant.voxels
    return store.voxel_name(wanted) if wanted or not store.voxel_names else store.voxel_names[0]


def _judge(
    sequences: list[Sequence],
    entrants: Mapping[str, Entrant],
    voxels: str,
    scale: int,
    place: Parallel,
    album: Album,
    protocols: tuple[Protocol, ...],
    timing: Timing,
    progress: Progress,
) -> list[FrameScore]:
    total = sum(sequence.num_frames for sequence in sequences)
    scores: list[FrameScore] = []
    try:
        for number, sequence in enumerate(sequences, start=1):
            first = len(scores)
            for frame in judge_sequence(sequence, entrants, voxels, scale, place.device, protocols, timing):
                album.offer(frame)
                scores.extend(frame.scores)
                timing.frames += 1
                pace = f"{timing.frames_per_second:.3g} frames/s"
                progress(timing.frames, total, f"{sequence.name}/{frame.frame}, {pace}")
            mean = mean_score(RESTORED, protocols[0], scores[first:])
            logger.info(sequence_line(sequence.name, number, len(sequences), mean))
    except torch.OutOfMemoryError as error:
        raise SpkError(
            f"out of GPU memory even with tiles of 64 pixels: {error}", "num_frames=3, or parallel.device=cpu"
        ) from error
    return scores


def _provenance(
    entrants: Mapping[str, Entrant], store: Store, config: EvaluateConfig, place: Parallel
) -> dict[str, Any]:
    networks = {}
    for name, entrant in entrants.items():
        info = entrant.restorer.info
        networks[name] = {
            "checkpoint": str(info.path),
            "step": info.step,
            "digest": info.header.get("digest"),
            "averaged_weights": info.averaged,
            "trained_on": dict(info.store),
            "voxels": entrant.voxels,
            "tiling": to_plain(entrant.tiling),
            "config": to_plain(info.config),
        }
    return {
        "store": {"path": store.place, "name": store.name, "fingerprint": store.fingerprint},
        "networks": networks,
        "settings": to_plain(config),
        "versions": versions() | {"device": _device_name(place.device)},
    }


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def _write(out: Path, results: Results, album: Album, timing: Mapping[str, float]) -> Path:
    for frame in album.middle:
        write_png(out / "samples" / f"{frame.sequence}_{frame.frame}.png", panels(frame))
    for protocol in results.protocols:
        folder = out / protocol.name
        summary = json.dumps(results.summary(protocol), indent=1, allow_nan=False)
        write_atomic(folder / "per_frame.csv", results.per_frame_csv(protocol))
        write_atomic(folder / "per_sequence.csv", results.per_sequence_csv(protocol))
        write_atomic(folder / "log.txt", sequence_log(results, protocol))
        write_atomic(folder / "summary.json", summary + "\n")
    write_atomic(out / "timing.json", json.dumps(timing, indent=1) + "\n")
    report = out / results.protocols[0].name / "report.html"
    write_atomic(report, report_page(results, album))
    return report
