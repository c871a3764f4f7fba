"""The verb `evaluate`: a checkpoint and a store to scores, pictures and a report."""

import json
import logging
from collections.abc import Mapping
from collections.abc import Sequence as Several
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model.evaluation.config import EvaluateConfig
from model.evaluation.data_quality import data_quality
from model.evaluation.judge import judge_sequence
from model.evaluation.lineup import Lineup, check_names, line_up, sequences_to_restore
from model.evaluation.methods import RESTORED
from model.evaluation.pictures import Album, panels
from model.evaluation.provenance import provenance
from model.evaluation.results import Results
from model.evaluation.scores import FrameScore, mean_score
from model.evaluation.sequence_log import average_line, sequence_line, sequence_log
from model.evaluation.timing import Timing
from model.parallel import parallel
from model.repeatable import inference
from model.report.document import report_page
from model.restorer import load_restorer
from model.shortage import is_out_of_memory
from pipeline.errors import SpkError
from pipeline.files import write_atomic
from pipeline.images import write_png
from pipeline.reports import Progress, no_progress
from pipeline.store import Sequence, open_store

logger = logging.getLogger(__name__)


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
        found: dict[str, Any] = {
            "protocols": self.protocols,
            "baselines": self.baselines,
            "report": str(self.report),
            "timing": dict(self.timing),
        }
        return found | ({"spikes": self.results.worth()} if self.results.ablated else {})


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
    opened = open_store(store)
    sequences = sequences_to_restore(opened, config.split)
    check_names(compare or {}, config)
    paths = {RESTORED: checkpoint, **(compare or {})}
    with parallel(config.parallel) as place, inference():
        restorers = {name: load_restorer(path, place) for name, path in paths.items()}
        lineup = line_up(restorers, opened, sequences, config, place.device)
        album = Album([(s.name, s.num_frames) for s in sequences], config.pictures)
        timing = Timing()
        scores = _judge(sequences, lineup, album, timing, progress)
        timed = timing.to_json() | {"peak_memory_bytes": place.peak_memory_bytes()}
    results = Results(
        split=config.split,
        protocols=tuple(lineup.protocols),
        methods=lineup.methods,
        frames={sequence.name: sequence.num_frames for sequence in sequences},
        scores=tuple(scores),
        provenance=provenance(lineup, opened, config),
        quality={sequence.name: data_quality(sequence) for sequence in sequences},
        ablated=lineup.ablated,
    )
    for protocol in results.protocols:
        if results.scores and not results.scores_by(protocol):
            logger.warning("protocol %s takes none of these frames: its definition says which", protocol.name)
    logger.info(average_line(results.means()[RESTORED]))
    return EvaluateReport(results=results, report=_write(out, results, album, timed), timing=timed)


def _judge(
    sequences: Several[Sequence], lineup: Lineup, album: Album, timing: Timing, progress: Progress
) -> list[FrameScore]:
    total = sum(sequence.num_frames for sequence in sequences)
    scores: list[FrameScore] = []
    try:
        for number, sequence in enumerate(sequences, start=1):
            first = len(scores)
            for frame in judge_sequence(sequence, lineup, timing):
                album.offer(frame)
                scores.extend(frame.scores)
                timing.frames += 1
                pace = f"{timing.frames_per_second:.3g} frames/s"
                progress(timing.frames, total, f"{sequence.name}/{frame.frame}, {pace}")
            mean = mean_score(RESTORED, lineup.protocols[0], scores[first:])
            logger.info(sequence_line(sequence.name, number, len(sequences), mean))
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise SpkError(
            f"out of memory even with tiles of 64 pixels: {error}", "num_frames=3, or parallel.device=cpu"
        ) from error
    return scores


def _write(out: Path, results: Results, album: Album, timing: Mapping[str, float]) -> Path:
    for frame in album.samples:
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
