"""Restoring a sequence with several networks at once, and scoring every frame as it comes."""

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from model.evaluation.baselines import spike_only
from model.evaluation.lineup import Entrant, Lineup
from model.evaluation.methods import BLURRY, RESTORED, SHARP, SPIKE_ONLY, SPIKES
from model.evaluation.scores import FrameScore
from model.evaluation.shots import Candidate, Shot
from model.evaluation.timing import Timing
from model.metrics import to_rgb8
from model.normalize import to_unit
from model.tiling import restore_tiled
from pipeline.clips import sharp_instants
from pipeline.errors import CheckpointError
from pipeline.previews.preview import enlarge, voxel_preview
from pipeline.store import Sequence
from pipeline.voxels import frames_per_bin


@dataclass(frozen=True, kw_only=True, slots=True)
class JudgedFrame:
    """One frame as every method restored it.

    Attributes:
        sequence, frame, index: where it is.
        images: uint8 (3, H, W) on the CPU, by method; `sharp` only where there is one; `spikes` is a preview.
        scores: one a method and protocol; without a sharp frame only by protocols that need none.
    """

    sequence: str
    frame: str
    index: int
    images: Mapping[str, Tensor]
    scores: tuple[FrameScore, ...]

    @property
    def psnrs(self) -> dict[str, float]:
        """By method, by the first protocol that gives one; empty without a sharp frame."""
        scores = [score for score in self.scores if "psnr" in score.values]
        return {score.method: score.psnr for score in scores if score.protocol == scores[0].protocol}

    @property
    def psnr(self) -> float | None:
        """Of the restored frame by the first protocol, in dB; None without a sharp frame."""
        return self.psnrs.get(RESTORED)


def judge_sequence(sequence: Sequence, lineup: Lineup, timing: Timing | None = None) -> Iterator[JudgedFrame]:
    """Restore a sequence and score its frames, in order, holding no more than a clip of each network in memory.

    Args:
        timing: told how long networks and scores take.

    Raises:
        CheckpointError: a network gives values that are not finite.
    """
    timing = timing or Timing()
    scoring = [(protocol, protocol.frames(len(sequence.frames))) for protocol in lineup.protocols]
    starts = {start for start, _ in sequence.runs}
    before: dict[str, Tensor] = {}
    streams = {name: _restored(sequence, entrant, lineup) for name, entrant in lineup.entrants.items()}
    for index, frame in enumerate(sequence.frames):
        if index in starts:
            before = {}
        shot = _shot(sequence, index, lineup, before.get(SHARP))
        candidates = {BLURRY: Candidate(image=to_unit(shot.blurry), rgb8=shot.blurry)}
        for name, stream in streams.items():
            with timing.part("networks"):
                restored = next(stream)
            if restored is not None:
                candidates[name] = _candidate(restored, lineup.entrants[name], f"{sequence.name}/{frame}")
        candidates[SPIKE_ONLY] = _estimate(shot, shot.counts)
        for name, changed in lineup.estimates.items():
            counts = torch.tensor(changed[sequence.name].grids[index], device=lineup.device)
            candidates[name] = _estimate(shot, counts)
        candidates = {name: replace(made, before=before.get(name)) for name, made in candidates.items()}
        with timing.part("scores"):
            scores = tuple(
                FrameScore(sequence.name, frame, index, name, protocol.name, protocol.score(candidate, shot))
                for protocol, frames in scoring
                if index in frames and not (protocol.needs_sharp and shot.sharp is None)
                for name, candidate in candidates.items()
            )
        before = {name: candidate.rgb8 for name, candidate in candidates.items()}
        if shot.sharp is not None:
            before[SHARP] = shot.sharp
        images = {name: candidate.rgb8.cpu() for name, candidate in candidates.items()}
        if shot.sharp is not None:
            images[SHARP] = shot.sharp.cpu()
        images[SPIKES] = _preview(shot)
        yield JudgedFrame(sequence=sequence.name, frame=frame, index=index, images=images, scores=scores)


def _restored(sequence: Sequence, entrant: Entrant, lineup: Lineup) -> Iterator[Tensor | None]:
    """Every frame in order; None where there are no spikes to restore it with, which is a gap in the sequence."""
    voxels = None if entrant.voxels is None else sequence.voxels(entrant.voxels)
    instants = torch.from_numpy(sharp_instants(sequence)) if entrant.restorer.takes_instants else None
    there = [True] * len(sequence.frames)
    if entrant.changed is not None:
        voxels, there, _ = entrant.changed[sequence.name]
    for run in sequence.runs:  # frames on the two sides of a gap are no neighbours
        for known, part in itertools.groupby(range(*run), key=lambda index: bool(there[index])):
            frames = list(part)
            if not known:
                yield from [None] * len(frames)
                continue
            span = frames[0], frames[-1] + 1
            yield from restore_tiled(
                entrant.restorer,
                sequence.blurry,
                voxels,
                entrant.tiling,
                span=span,
                instants=instants,
                scale=lineup.scale,
                device=lineup.device,
            )


def _estimate(shot: Shot, counts: Tensor) -> Candidate:
    image = spike_only(shot.blurry, counts, shot.frames_per_bin, shot.instant, shot.scale)
    return Candidate(image=image, rgb8=to_rgb8(image))


def _candidate(restored: Tensor, entrant: Entrant, frame: str) -> Candidate:
    try:
        return Candidate(image=restored, rgb8=to_rgb8(restored))
    except ValueError as error:
        path = entrant.restorer.info.path
        fix = "use an earlier checkpoint of the run, or precision fp32"
        raise CheckpointError(f"{path}: restoring {frame}: {error}", fix) from error


def _shot(sequence: Sequence, index: int, lineup: Lineup, before: Tensor | None) -> Shot:
    """One exposure; its instant is that of the sharp frame, or the middle where none is known."""
    start, stop = (int(edge) for edge in sequence.exposure[index])
    sharp = int(sequence.sharp_index[index])
    device = lineup.device
    counts = torch.tensor(sequence.voxels(lineup.voxels)[index], device=device)
    return Shot(
        blurry=torch.tensor(sequence.blurry[index], device=device),
        sharp=torch.tensor(sequence.sharp[index], device=device) if sequence.has_sharp[index] else None,
        before=before,
        counts=counts,
        frames_per_bin=frames_per_bin(stop - start, len(counts)).tolist(),
        instant=(stop - start) / 2 if sharp < 0 else sharp - start + 0.5,
        scale=lineup.scale,
    )


def _preview(shot: Shot) -> Tensor:
    around = shot.instant / sum(shot.frames_per_bin) * len(shot.counts)
    grey = voxel_preview(shot.counts.cpu().numpy(), shot.frames_per_bin, around=around)
    return torch.from_numpy(enlarge(grey, shot.scale)).expand(3, -1, -1)
