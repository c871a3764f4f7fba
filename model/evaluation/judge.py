"""Restoring a sequence with several networks at once, and scoring every frame as it comes."""

from collections.abc import Iterator, Mapping
from collections.abc import Sequence as Several
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from model.evaluation.baselines import spike_only
from model.evaluation.protocols import DEFAULT, PROTOCOLS, Protocol
from model.evaluation.scores import FrameScore
from model.evaluation.shots import Candidate, Shot
from model.evaluation.timing import Timing
from model.metrics import to_rgb8
from model.normalize import to_unit
from model.restorer import Restorer
from model.tiling import Tiling, restore_tiled
from pipeline.errors import CheckpointError
from pipeline.previews.preview import enlarge, voxel_preview
from pipeline.store import Sequence
from pipeline.voxels import frames_per_bin

RESTORED, BLURRY, SPIKE_ONLY, SHARP, SPIKES = "restored", "blurry", "spike_only", "sharp", "spikes"
RESERVED = (RESTORED, BLURRY, SPIKE_ONLY, SHARP, SPIKES)


@dataclass(frozen=True, kw_only=True, slots=True)
class Entrant:
    """A network that takes part, and how a sequence is cut for it."""

    restorer: Restorer
    voxels: str | None
    tiling: Tiling


@dataclass(frozen=True, kw_only=True, slots=True)
class JudgedFrame:
    """One frame as every method restored it.

    Attributes:
        sequence, frame, index: where it is.
        images: uint8 (3, H, W) on the CPU, by method; `sharp` only where there is one; `spikes` is a preview.
        scores: one a method and protocol; empty without a sharp frame.
    """

    sequence: str
    frame: str
    index: int
    images: Mapping[str, Tensor]
    scores: tuple[FrameScore, ...]

    @property
    def psnrs(self) -> dict[str, float]:
        """By method, by the first protocol; empty without a sharp frame."""
        first = [score for score in self.scores if score.protocol == self.scores[0].protocol]
        return {score.method: score.psnr for score in first}

    @property
    def psnr(self) -> float | None:
        """Of the restored frame by the first protocol, in dB; None without a sharp frame."""
        return self.psnrs.get(RESTORED)


def judge_sequence(
    sequence: Sequence,
    entrants: Mapping[str, Entrant],
    voxels: str,
    scale: int,
    device: torch.device,
    protocols: Several[Protocol] = (PROTOCOLS[DEFAULT],),
    timing: Timing | None = None,
) -> Iterator[JudgedFrame]:
    """Restore a sequence and score its frames, in order, holding no more than a clip of each network in memory.

    Args:
        entrants: the networks, by method name.
        voxels: name of the voxel grids for the spike-only estimate and the pictures.
        scale: RGB pixels per spike pixel.
        protocols: to score by.
        timing: told how long networks and scores take.

    Raises:
        CheckpointError: a network gives values that are not finite.
    """
    timing = timing or Timing()
    scoring = [(protocol, protocol.frames(len(sequence.frames))) for protocol in protocols]
    starts = {start for start, _ in sequence.runs}
    before: dict[str, Tensor] = {}
    streams = {name: _restored(sequence, entrant, scale, device) for name, entrant in entrants.items()}
    for index, frame in enumerate(sequence.frames):
        if index in starts:
            before = {}
        shot = _shot(sequence, index, voxels, scale, device, before.get(SHARP))
        candidates = {BLURRY: Candidate(image=to_unit(shot.blurry), rgb8=shot.blurry)}
        for name, stream in streams.items():
            with timing.part("networks"):
                candidates[name] = _candidate(next(stream), entrants[name], f"{sequence.name}/{frame}")
        estimate = spike_only(shot.blurry, shot.counts, shot.frames_per_bin, shot.instant, scale)
        candidates[SPIKE_ONLY] = Candidate(image=estimate, rgb8=to_rgb8(estimate))
        candidates = {name: replace(made, before=before.get(name)) for name, made in candidates.items()}
        with timing.part("scores"):
            scores = tuple(
                FrameScore(sequence.name, frame, index, name, protocol.name, protocol.score(candidate, shot))
                for protocol, frames in scoring
                if shot.sharp is not None and index in frames
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


def _restored(sequence: Sequence, entrant: Entrant, scale: int, device: torch.device) -> Iterator[Tensor]:
    voxels = None if entrant.voxels is None else sequence.voxels(entrant.voxels)
    for run in sequence.runs:  # frames on the two sides of a gap are no neighbours
        yield from restore_tiled(
            entrant.restorer, sequence.blurry, voxels, entrant.tiling, span=run, scale=scale, device=device
        )


def _candidate(restored: Tensor, entrant: Entrant, frame: str) -> Candidate:
    try:
        return Candidate(image=restored, rgb8=to_rgb8(restored))
    except ValueError as error:
        path = entrant.restorer.info.path
        fix = "use an earlier checkpoint of the run, or precision fp32"
        raise CheckpointError(f"{path}: restoring {frame}: {error}", fix) from error


def _shot(
    sequence: Sequence, index: int, voxels: str, scale: int, device: torch.device, before: Tensor | None
) -> Shot:
    """One exposure; its instant is that of the sharp frame, or the middle where none is known."""
    start, stop = (int(edge) for edge in sequence.exposure[index])
    sharp = int(sequence.sharp_index[index])
    counts = torch.tensor(sequence.voxels(voxels)[index], device=device)
    return Shot(
        blurry=torch.tensor(sequence.blurry[index], device=device),
        sharp=torch.tensor(sequence.sharp[index], device=device) if sequence.has_sharp[index] else None,
        before=before,
        counts=counts,
        frames_per_bin=frames_per_bin(stop - start, len(counts)).tolist(),
        instant=(stop - start) / 2 if sharp < 0 else sharp - start + 0.5,
        scale=scale,
    )


def _preview(shot: Shot) -> Tensor:
    around = shot.instant / sum(shot.frames_per_bin) * len(shot.counts)
    grey = voxel_preview(shot.counts.cpu().numpy(), shot.frames_per_bin, around=around)
    return torch.from_numpy(enlarge(grey, shot.scale)).expand(3, -1, -1)
