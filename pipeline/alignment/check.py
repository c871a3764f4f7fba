"""`spk align STORE --check`: does what the images show agree with when they are said to have been exposed?"""

import functools
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from typing import Any

import numpy as np

from pipeline.alignment.offsets import Estimate, Estimates, Verdict, estimate_offsets
from pipeline.alignment.sweeps import Curves, Instant, Recorded, sweep_blurry, sweep_sharp
from pipeline.errors import UsageError
from pipeline.reports import Progress, no_progress
from pipeline.store import Sequence as Recording
from pipeline.store import Store
from pipeline.tasks import run_all

SWEEP = 12
FRAMES_AT_ONCE = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class SequenceOffset:
    """What the check found of one sequence.

    Attributes:
        key: "split/sequence".
        r2: median over the frames of how well the blurry images, or else the sharp ones, fit their spikes now.
        frames: names of its frames, in the order of `estimates.frames`.
    """

    key: str
    r2: float | None
    frames: tuple[str, ...]
    estimates: Estimates

    @property
    def verdict(self) -> Verdict:
        return self.estimates.whole.verdict

    @property
    def is_off(self) -> bool:
        """Whether its log is off."""
        return self.verdict in ("shifted", "drifting")

    def to_json(self) -> dict[str, Any]:
        """Its part of the stable `--json` object."""
        alone = [
            {"frame": name, "verdict": one.verdict, "best": one.best, "low": one.low, "high": one.high}
            for name, one in zip(self.frames, self.estimates.frames, strict=True)
        ]
        return {"sequence": self.key, "r2": self.r2, **asdict(self.estimates.whole), "frames": alone}


def check_alignment(
    store: Store,
    *,
    sweep: int = SWEEP,
    only: str = "*",
    workers: int = 2,
    progress: Progress = no_progress,
) -> tuple[SequenceOffset, ...]:
    """Sweep the windows of every sequence by up to `sweep` spike frames either way.

    Args:
        only: pattern of "split/sequence" for the sequences to check.

    Raises:
        UsageError: no sequence fits the pattern, or a sweep too short to show a minimum.
        StoreError: the store is damaged.
    """
    if sweep < 2:
        raise UsageError(f"--sweep {sweep}: at least 2 spike frames are needed")
    keys = [f"{split}/{name}" for split, name in store.sequence_keys]
    chosen = [key for key in keys if fnmatchcase(key, only)]
    if not chosen:
        raise UsageError(f"--sequence {only!r}: fits none of {len(keys)}", f"such as {keys[0]}, or train/*")
    sequences = [store.sequence(*key.split("/")) for key in chosen]
    tasks = [task for sequence in sequences for task in _tasks(store, sequence, sweep)]
    done = run_all(
        sweep_frames, tasks, workers=workers, scheduler=None, progress=progress, what="exposures swept"
    )
    swept = iter(curves for of_task in done for curves in of_task)
    return tuple(
        _judged(sequence, [next(swept) for _ in range(sequence.num_frames)]) for sequence in sequences
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class SweepTask:
    """Some frames of a sequence to be swept.

    Attributes:
        frames: [start, stop) of them.
        middle: whether the sharp instant is the middle of the exposure, be it a spike frame or between two.
    """

    sequence: Recording
    frames: tuple[int, int]
    scale: int
    sweep: int
    middle: bool


def sweep_frames(task: SweepTask) -> list[list[Curves]]:
    """The curves of each frame of a task, of its blurry and its sharp image as far as there are such."""
    sequence = task.sequence
    recorded = Recorded(sequence.spikes, sequence.spike_shape[1], task.scale)
    return [_sweep_frame(task, sequence, recorded, k) for k in range(*task.frames)]


def _sweep_frame(task: SweepTask, sequence: Recording, recorded: Recorded, k: int) -> list[Curves]:
    start, stop = sequence.exposure[k].tolist()
    found = []
    if sequence.blurry is not None and sequence.light:  # else it was made from these very spikes
        found.append(sweep_blurry(recorded, sequence.blurry[k], (start, stop), task.sweep))
    if sequence.sharp is not None and sequence.has_sharp[k]:
        between = task.middle and (stop - start) % 2 == 0
        instant = Instant(index=int(sequence.sharp_index[k]), at_beginning=between)
        found.append(sweep_sharp(recorded, sequence.sharp[k], instant, task.sweep))
    return [curves for curves in found if curves is not None]


def _tasks(store: Store, sequence: Recording, sweep: int) -> list[SweepTask]:
    middle = store.attributes["manifest"].get("sharp", {}).get("rule", "middle") == "middle"
    make = functools.partial(SweepTask, sequence=sequence, scale=store.scale, sweep=sweep, middle=middle)
    starts = range(0, sequence.num_frames, FRAMES_AT_ONCE)
    return [make(frames=(a, min(a + FRAMES_AT_ONCE, sequence.num_frames))) for a in starts]


def _judged(sequence: Recording, curves: Sequence[Sequence[Curves]]) -> SequenceOffset:
    r2 = [fit.r2 for fit in sequence.light] or [one.r2 for of_frame in curves for one in of_frame]
    estimates = estimate_offsets(curves)
    if not (sequence.light or sequence.has_sharp.any()):
        nothing = Estimate(verdict="undecidable", hint="no RGB and no sharp frames to compare with")
        estimates = Estimates(whole=nothing, frames=estimates.frames)
    return SequenceOffset(
        key=f"{sequence.split}/{sequence.name}",
        r2=round(float(np.median(r2)), 4) if r2 else None,
        frames=sequence.frames,
        estimates=estimates,
    )
