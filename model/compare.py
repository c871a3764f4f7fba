"""The verb `compare`: two evaluations of the same frames to a difference, and whether it is more than chance."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from model.evaluation.comparison import Better, Comparison, frames_only_in, pair_frames
from model.evaluation.paired import estimate
from model.evaluation.scored_frames import ScoredFrames, choose_protocol, find_scores, read_scores
from pipeline.errors import UsageError

logger = logging.getLogger(__name__)

_DIRECTIONS: Mapping[str, Better] = {"psnr": "higher", "ssim": "higher", "lpips": "lower"}
"""By the first part of a metric's name: psnr_y is as psnr, and psnr_reblur, and psnr_change."""
_NEITHER: Mapping[str, str] = {
    "spikes": "spikes is best at 1: more is better below it, and less above it, where noise was copied",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class CompareConfig:
    """What to compare, and how.

    Attributes:
        protocol: None takes the one that both have, rgb8-all of several.
        metric: a column of per_frame.csv.
        method: of both.
        against: of A, where it is another one.
        better: whether higher or lower values are; None for metrics of which that is known.
        common: compare what both have where they do not have the same frames, or are not of the same store.
        samples: draws of the bootstrap.
        seed: of these draws.
    """

    protocol: str | None = None
    metric: str = "psnr"
    method: str = "restored"
    against: str | None = None
    better: Better | None = None
    common: bool = False
    samples: int = 10_000
    seed: int = 0

    @property
    def direction(self) -> Better:
        """Whether higher or lower values are better.

        Raises:
            UsageError: it is not known.
        """
        known = self.better or _DIRECTIONS.get(self.metric.partition("_")[0])
        if known is None:
            unknown = f"whether more of {self.metric} is better is not known"
            raise UsageError(_NEITHER.get(self.metric, unknown), "--better higher or lower")
        return known


def compare(a: Path, b: Path, config: CompareConfig | None = None) -> Comparison:
    """Pair the frames of two evaluations, and estimate how much B differs from A.

    Args:
        a, b: run folders, their `eval`, a protocol's folder in it, or a per_frame.csv.

    Raises:
        UsageError: there is nothing to compare, or the two are not of the same frames.
    """
    config = config or CompareConfig()
    _ = config.direction  # asked for before anything is read
    found = find_scores(a), find_scores(b)
    protocol = choose_protocol(found, config.protocol)
    files = [side.get("") or side[str(protocol)] for side in found]
    methods = config.against or config.method, config.method
    of_a, of_b = (
        read_scores(file, protocol=config.protocol or protocol, method=method, metric=config.metric)
        for file, method in zip(files, methods, strict=True)
    )
    _check_same_frames(of_a, of_b, config.common)
    sequences, left_out = pair_frames(of_a, of_b)
    differences = {one.name: one.finite_difference for one in sequences if one.finite_difference.size}
    if not differences:
        raise UsageError(
            f"{of_a.path} and {of_b.path}: no frame of which both have a finite {config.metric}",
            "--metric ssim, or another protocol",
        )
    return Comparison(
        a=of_a,
        b=of_b,
        better=config.direction,
        sequences=sequences,
        left_out=left_out,
        estimates=estimate(list(differences.values()), samples=config.samples, seed=config.seed),
        compared=tuple(differences),
    )


def _check_same_frames(a: ScoredFrames, b: ScoredFrames, common: bool) -> None:
    for what in ("protocol", "split"):
        values = getattr(a, what), getattr(b, what)
        if values[0] != values[1]:
            raise UsageError(
                f"A is of {what} {values[0]} ({a.path}), B of {what} {values[1]} ({b.path})",
                f"evaluate both by the same {what}: spk evaluate RUN --{what} {values[0]}",
            )
    lacking = [side.path for side in (a, b) if side.fingerprint is None]
    if lacking:
        logger.warning("%s: no summary.json beside it says of which store it is", lacking[0])
    elif a.fingerprint != b.fingerprint:
        places = [f"{side.summary['store'].get('path')} ({side.fingerprint})" for side in (a, b)]
        _differ(f"A was evaluated on {places[0]}, B on {places[1]}", common)
    only_a, only_b = (frames_only_in(*pair) for pair in ((a, b), (b, a)))
    if only_a or only_b:
        examples = [
            f"{len(only)} frames only {name} has, as {'/'.join(only[0])}"
            for name, only in (("A", only_a), ("B", only_b))
            if only
        ]
        _differ("not the same frames: " + "; ".join(examples), common)


def _differ(problem: str, common: bool) -> None:
    if not common:
        raise UsageError(problem, "--common compares the frames of the same name that both have")
    logger.warning("%s", problem)
