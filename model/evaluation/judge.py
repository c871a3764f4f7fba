"""Restoring a sequence with several networks at once, and scoring every frame as it comes."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from model.evaluation.baselines import spike_only
from model.evaluation.scores import FrameScore
from model.metrics import psnr, ssim, to_rgb8
from model.restorer import Restorer
from model.tiling import Tiling, restore_tiled
from pipeline.clips import sharp_instants
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
        scores: one a method; empty without a sharp frame.
    """

    sequence: str
    frame: str
    index: int
    images: Mapping[str, Tensor]
    scores: tuple[FrameScore, ...]

    @property
    def psnr(self) -> float | None:
        """Of the restored frame, in dB; None without a sharp frame."""
        return next((score.psnr for score in self.scores if score.method == RESTORED), None)


def judge_sequence(
    sequence: Sequence, entrants: Mapping[str, Entrant], voxels: str, scale: int, device: torch.device
) -> Iterator[JudgedFrame]:
    """Restore a sequence and score its frames, in order, holding no more than a clip of each network in memory.

    Args:
        entrants: the networks, by method name.
        voxels: name of the voxel grids for the spike-only estimate and the pictures.
        scale: RGB pixels per spike pixel.

    Raises:
        CheckpointError: a network gives values that are not finite.
    """
    streams = {name: _restored(sequence, entrant, scale, device) for name, entrant in entrants.items()}
    for index, frame in enumerate(sequence.frames):
        blurry = torch.tensor(sequence.blurry[index], device=device)
        images = {BLURRY: blurry}
        for name, stream in streams.items():
            images[name] = _checked(next(stream), entrants[name], f"{sequence.name}/{frame}")
        counts = torch.tensor(sequence.voxels(voxels)[index])
        images[SPIKE_ONLY] = to_rgb8(_estimate(sequence, index, blurry, counts, scale))
        scores = ()
        if sequence.has_sharp[index]:
            sharp = torch.tensor(sequence.sharp[index], device=device)
            scores = tuple(
                FrameScore(
                    sequence.name, frame, index, name, psnr(image, sharp).item(), ssim(image, sharp).item()
                )
                for name, image in images.items()
            )
            images[SHARP] = sharp
        images[SPIKES] = _preview(sequence, index, counts, scale)
        shown = {name: image.cpu() for name, image in images.items()}
        yield JudgedFrame(sequence=sequence.name, frame=frame, index=index, images=shown, scores=scores)


def _restored(sequence: Sequence, entrant: Entrant, scale: int, device: torch.device) -> Iterator[Tensor]:
    voxels = None if entrant.voxels is None else sequence.voxels(entrant.voxels)
    instants = torch.from_numpy(sharp_instants(sequence)) if entrant.restorer.takes_instants else None
    cut = {"instants": instants, "scale": scale, "device": device}
    for run in sequence.runs:  # frames on the two sides of a gap are no neighbours
        yield from restore_tiled(entrant.restorer, sequence.blurry, voxels, entrant.tiling, span=run, **cut)


def _checked(restored: Tensor, entrant: Entrant, frame: str) -> Tensor:
    try:
        return to_rgb8(restored)
    except ValueError as error:
        path = entrant.restorer.info.path
        fix = "use an earlier checkpoint of the run, or precision fp32"
        raise CheckpointError(f"{path}: restoring {frame}: {error}", fix) from error


def _instant(sequence: Sequence, index: int) -> tuple[int, float]:
    """Spike frames of an exposure, and its sharp instant counted from its start; the middle where none is known."""
    start, stop = (int(edge) for edge in sequence.exposure[index])
    sharp = int(sequence.sharp_index[index])
    return stop - start, (stop - start) / 2 if sharp < 0 else sharp - start + 0.5


def _estimate(sequence: Sequence, index: int, blurry: Tensor, counts: Tensor, scale: int) -> Tensor:
    num_frames, instant = _instant(sequence, index)
    bins = frames_per_bin(num_frames, len(counts)).tolist()
    return spike_only(blurry, counts.to(blurry.device), bins, instant, scale)


def _preview(sequence: Sequence, index: int, counts: Tensor, scale: int) -> Tensor:
    num_frames, instant = _instant(sequence, index)
    bins = frames_per_bin(num_frames, len(counts)).tolist()
    grey = voxel_preview(counts.numpy(), bins, around=instant / num_frames * len(counts))
    return torch.from_numpy(enlarge(grey, scale)).expand(3, -1, -1)
