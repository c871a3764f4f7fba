"""Changes to the spikes that a trained network restores with: what is lost tells what the spikes are worth.

Each is named as it is asked for: `spikes=zero`, `spikes=shuffle`, `spikes=shift:+8`, `spikes=rate:1/2`.
"""

import functools
import re
import unicodedata
import zlib
from collections.abc import Iterable
from collections.abc import Sequence as Several
from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from pipeline.ablated_voxels import FewerSpikes, HigherThreshold, NoSpikes, OtherFrames
from pipeline.errors import UsageError
from pipeline.respike import MOST_THRESHOLD
from pipeline.storage.selections import Selectable
from pipeline.store import Sequence
from pipeline.virtual_voxels import CountedVoxels, packed_frames

SHIFT = re.compile(r"([+-]|±|\+-)(\d{1,9})")
RATE = re.compile(r"\d{1,9}(/[1-9]\d{0,8}|\.\d{1,9})?")
GRAMMAR = "spikes=zero, spikes=shuffle, spikes=shift:+8, shift:-8 or shift:±8, spikes=rate:1/2"


class ChangedSpikes(NamedTuple):
    """Other spikes for one sequence.

    Attributes:
        grids: (N, K, H, W) counts.
        there: (N,), the frames that have them. The others cannot be restored with them, nor beside others.
        source: which spikes these are, for people.
    """

    grids: Selectable
    there: npt.NDArray[np.bool_]
    source: str


class Ablation(Protocol):
    """A change to the spikes.

    Attributes:
        name: of the row in the tables.
    """

    @property
    def name(self) -> str: ...

    def of(self, sequence: Sequence, voxels: str, split: Several[Sequence]) -> ChangedSpikes:
        """The spikes of `sequence`, changed.

        Args:
            voxels: name of the voxel grids.
            split: all sequences there are.

        Raises:
            UsageError: the sequence cannot have such spikes.
        """
        ...


@dataclass(frozen=True, slots=True)
class Zero:
    """No spike at all."""

    name: ClassVar[str] = "spikes=zero"

    def of(self, sequence: Sequence, voxels: str, split: Several[Sequence]) -> ChangedSpikes:
        return ChangedSpikes(NoSpikes(sequence.voxels(voxels)), _all(sequence), "none")


@dataclass(frozen=True, slots=True)
class Shuffle:
    """The spikes of the next sequence that has grids of the same size; of frames half a sequence away if none has."""

    name: ClassVar[str] = "spikes=shuffle"

    def of(self, sequence: Sequence, voxels: str, split: Several[Sequence]) -> ChangedSpikes:
        own, place = sequence.voxels(voxels), [one.name for one in split].index(sequence.name)
        for other in (*split[place + 1 :], *split[:place]):
            grids = other.voxels(voxels)
            if grids.shape[1:] == own.shape[1:]:
                frames = [i % len(grids) for i in range(sequence.num_frames)]
                return ChangedSpikes(OtherFrames(grids, frames), _all(sequence), f"those of {other.name}")
        count = sequence.num_frames
        if count < 2:
            raise UsageError(
                f"spikes=shuffle: {sequence.name} has one frame, and no other sequence has grids of its size",
                "use spikes=zero or spikes=shift",
            )
        frames = [(i + count // 2) % count for i in range(count)]
        return ChangedSpikes(OtherFrames(own, frames), _all(sequence), f"of frames {count // 2} further on")


@dataclass(frozen=True, slots=True)
class Shift:
    """Counted again from the recorded spikes, `by` spike frames later; earlier where it is negative."""

    by: int

    @property
    def name(self) -> str:
        return f"spikes=shift:{self.by:+d}"

    def of(self, sequence: Sequence, voxels: str, split: Several[Sequence]) -> ChangedSpikes:
        grids, moved = sequence.voxels(voxels), sequence.exposure + self.by
        there = (moved[:, 0] >= 0) & (moved[:, 1] <= len(sequence.spikes))
        if not there.any():
            raise UsageError(
                f"{self.name}: moves all exposures of {sequence.name} out of its {len(sequence.spikes)} spike frames",
                "shift by less",
            )
        packed = functools.partial(packed_frames, sequence.spikes)
        counted = CountedVoxels(packed, moved[there], grids.shape[1], grids.shape[2:])
        places = (np.cumsum(there) - 1).tolist()
        frames = [place if known else None for place, known in zip(places, there.tolist(), strict=True)]
        return ChangedSpikes(OtherFrames(counted, frames), there, f"{self.by:+d} spike frames")


@dataclass(frozen=True, slots=True)
class Threshold:
    """Those of a camera with `times` the threshold, which fires at every `times`-th spike."""

    times: int

    def __post_init__(self) -> None:
        if not 1 <= self.times <= MOST_THRESHOLD:
            raise ValueError(f"threshold {self.times}: expected 1 to {MOST_THRESHOLD} times the recording's")

    @property
    def name(self) -> str:
        return f"threshold {self.times}"

    def of(self, sequence: Sequence, voxels: str, split: Several[Sequence]) -> ChangedSpikes:
        grids = HigherThreshold(sequence.voxels(voxels), self.times, _seed(sequence))
        return ChangedSpikes(grids, _all(sequence), f"every spike number {self.times}")


@dataclass(frozen=True, slots=True)
class Rate:
    """A share of them: every m-th of a pixel for 1/m, and for other shares each with that probability."""

    share: Fraction

    def __post_init__(self) -> None:
        if not 0 < self.share < 1:
            raise ValueError(f"rate {self.share}: expected more than 0 and less than 1")

    @property
    def name(self) -> str:
        return f"spikes=rate:{self.share}"

    def of(self, sequence: Sequence, voxels: str, split: Several[Sequence]) -> ChangedSpikes:
        if self.share.numerator == 1 and self.share.denominator <= MOST_THRESHOLD:
            return Threshold(self.share.denominator).of(sequence, voxels, split)
        grids = FewerSpikes(sequence.voxels(voxels), self.share, _seed(sequence))
        return ChangedSpikes(grids, _all(sequence), f"each with probability {self.share}")


def parse_ablation(text: str) -> tuple[Ablation, ...]:
    """What a user asks for, as `spikes=shift:±8`, which is two.

    Raises:
        ValueError: it is none.
    """
    # NFKC writes ½ as 1, a fraction slash and 2.
    plain = unicodedata.normalize("NFKC", text).replace("\u2044", "/").replace("\u2212", "-").replace(" ", "")
    what, _, change = plain.partition("=")
    kind, _, amount = change.partition(":")
    if what == "spikes":
        if change == "zero":
            return (Zero(),)
        if change == "shuffle":
            return (Shuffle(),)
        if kind == "shift" and (found := SHIFT.fullmatch(amount)) and int(found[2]):
            signs = (1, -1) if len(found[1]) == 2 or found[1] == "±" else (int(found[1] + "1"),)
            return tuple(Shift(sign * int(found[2])) for sign in signs)
        if kind == "rate" and RATE.fullmatch(amount):
            return (Rate(Fraction(amount)),)
    raise ValueError(f"ablate {text!r}: expected one of {GRAMMAR}")


def _all(sequence: Sequence) -> npt.NDArray[np.bool_]:
    return np.ones(sequence.num_frames, np.bool_)


def _seed(sequence: Sequence) -> int:
    """Another for every sequence, and always the same."""
    return zlib.crc32(sequence.name.encode())


def change_spikes(
    ablations: Iterable[Ablation], voxels: str, sequences: Several[Sequence]
) -> dict[str, dict[str, ChangedSpikes]]:
    """Other spikes for all sequences of a split, by the name of the change and the sequence.

    Args:
        voxels: name of the voxel grids that are changed.

    Raises:
        UsageError: a sequence cannot have such spikes.
    """
    return {
        ablation.name: {one.name: ablation.of(one, voxels, sequences) for one in sequences}
        for ablation in ablations
    }
