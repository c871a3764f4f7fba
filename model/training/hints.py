"""What makes a run slower than it has to be, and which setting to change: a hint for each, once."""

import logging
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from model.training.events import Listener, StepMetrics
from pipeline.mounts import mount_of
from pipeline.reader_times import ReaderTimes, Readings
from pipeline.storage.mapped import MappedArray
from pipeline.storage.places import is_remote
from pipeline.store import Store
from pipeline.virtual_voxels import VIRTUAL

logger = logging.getLogger(__name__)

SLOW_DATA = 0.2
"""Share of the time spent waiting for clips from which a hint is given."""
LONG_PAUSES = 0.2
"""Share of a session spent on validation, or on saving, from which a hint is given."""
SHORT_S = 60.0
"""Seconds of a session after which its pauses are judged; shorter runs need no hint."""
_MOSTLY, _BUSY, _QUEUED = 0.5, 0.7, 0.3
_SPARE = 1.25
_WANTED_PAUSES = 0.05


@dataclass(frozen=True, kw_only=True, slots=True)
class Reading:
    """How a run reads its clips.

    Attributes:
        store: as the user names it, and `folder`, where its files are.
        codec: of its voxel grids: none, lz4, zstd, or "virtual" for grids that are counted when they are read.
        workers: threads that read.
        processors: that this process may use.
        epoch_steps: steps after which every clip was read once.
    """

    store: str
    folder: Path
    codec: str
    workers: int
    processors: int
    epoch_steps: int


def reading_of(store: Store, voxels: str, *, workers: int, epoch_steps: int) -> Reading:
    """How the clips of a store's train split are read by this process, which may be one of several here."""
    grids = store.sequence("train", store.splits["train"][0]).voxels(voxels)
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return Reading(
        store=store.place,
        folder=store.path,
        codec=grids.layout.codec if isinstance(grids, MappedArray) else VIRTUAL,
        workers=workers,
        processors=max(len(os.sched_getaffinity(0)) // processes, 1),
        epoch_steps=epoch_steps,
    )


class Hints(Listener):
    """Logs hints. The first line of a session is not judged: it has what is done once.

    Args:
        reading: how the clips are read.
        times: what reading takes.
        start: steps done before this session.
        validate_every, checkpoint_every: in steps.
    """

    def __init__(
        self,
        reading: Reading,
        times: ReaderTimes,
        *,
        start: int,
        validate_every: int,
        checkpoint_every: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._reading = reading
        self._times = times
        self._start = self._step = start
        self._pauses = {
            "validation": ("validate_every", validate_every, "a smaller validate_clips or validate_crop"),
            "checkpoints": ("checkpoint_every", checkpoint_every, "a faster disk for the run"),
        }
        self._clock = clock
        self._began = clock()
        self._given: set[str] = set()

    def on_step(self, metrics: StepMetrics) -> None:
        """Give the hints that are due."""
        seconds = (metrics.step - self._step) / metrics.steps_per_s
        first, self._step = self._step == self._start, metrics.step
        readings = self._times.lap()
        if metrics.data_share > SLOW_DATA and not first:
            early = metrics.step - self._start <= self._reading.epoch_steps
            self._give("data", slow_data(self._reading, readings, seconds, metrics.data_share, early=early))
        if self._clock() - self._began < SHORT_S:
            return
        for (what, settings), share in zip(
            self._pauses.items(), (metrics.validation_share, metrics.saving_share), strict=True
        ):
            if share > LONG_PAUSES:
                self._give(what, long_pauses(what, share, *settings))

    def _give(self, kind: str, hint: str) -> None:
        if kind not in self._given:
            self._given.add(kind)
            logger.info("hint: %s", hint)


def slow_data(
    reading: Reading, readings: Readings, seconds: float, share: float, *, early: bool = False
) -> str:
    """Why clips are waited for, from what the threads that read them did, and what helps.

    Args:
        readings: over `seconds` of training.
        share: of them that was spent waiting.
        early: whether the first epoch of the session is not over.
    """
    waiting = f"{share:.0%} of the time is spent waiting for clips"
    if not reading.workers:
        return f"{waiting}, as the thread that trains reads them: set workers={min(2, reading.processors)} or more"
    busy = min(readings.wall_s / (seconds * reading.workers), 1.0)
    wall_s = max(readings.wall_s, 1e-9)
    threads = f"the {reading.workers} reading threads" if reading.workers > 1 else "the reading thread"
    verb = "are" if reading.workers > 1 else "is"
    from_disk = (
        busy >= _BUSY or readings.disk_bytes
    )  # threads of one program hold each other up a little as well
    if readings.blocked_s > _MOSTLY * wall_s and from_disk:
        return (
            f"{waiting}: {threads} {verb} held up {readings.blocked_s / wall_s:.0%} of the reading time"
            + (_disk(reading, readings, seconds, early=early))
        )
    if readings.queued_s > _QUEUED * wall_s:
        return (
            f"{waiting}: {threads} {verb} kept from computing {readings.queued_s / wall_s:.0%} of the reading time, as"
            f" others use the {reading.processors} processors: end other programs, or give this one more processors"
        )
    if busy < _BUSY:
        return (
            f"{waiting}, although {threads} {verb} busy only {busy:.0%} of the time: steps are too short to hide what"
            f" it takes to hand a batch over, or samples take unequal times; a larger batch_size evens that out"
        )
    return f"{waiting}: {threads} {verb} busy unpacking and copying {busy:.0%} of the time: " + _more(
        reading, readings, seconds * (1 - share)
    )


def _disk(reading: Reading, readings: Readings, seconds: float, *, early: bool) -> str:
    mount = None if is_remote(reading.store) else mount_of(reading.folder)
    where = f" from {mount}" if mount else ""
    came = f" by the disk: {readings.disk_bytes / seconds / 1e6:.3g} MB/s came" if readings.disk_bytes else ""
    first = (
        " This is the first epoch; what was read stays in memory as far as there is room." if early else ""
    )
    smaller = "write smaller voxel grids (spk voxelize --virtual, or --codec lz4), "
    return (
        f"{came or ', by no disk of this machine'}{where}; copy {reading.store} to a faster disk of this machine, "
        f"{'' if reading.codec == VIRTUAL else smaller}or ask for more at once, workers={2 * reading.workers}.{first}"
    )


def _more(reading: Reading, readings: Readings, computing_s: float) -> str:
    wanted = math.ceil(_SPARE * readings.wall_s / max(computing_s, 1e-9))
    workers = min(max(wanted, reading.workers + 1), reading.processors)
    helps = [f"set workers={workers}"] if workers > reading.workers else []
    if reading.codec != "none":
        what = "counted" if reading.codec == VIRTUAL else "unpacked"
        helps.append(
            f"store grids that need not be {what} (spk voxelize {reading.store} --codec none --name raw, voxels=raw)"
        )
    return (
        ", or ".join(helps)
        or f"its {reading.processors} processors cannot read more; a machine with more can"
    )


def long_pauses(what: str, share: float, setting: str, every: int, otherwise: str) -> str:
    """What to do about a share of the time that went to validation or to checkpoints.

    Args:
        setting: the name of the interval, which is `every` steps.
    """
    factor = share / (1 - share) * (1 - _WANTED_PAUSES) / _WANTED_PAUSES
    rarer = _rounded_up(max(every, 1) * factor)
    return (
        f"{share:.0%} of the time so far went to {what}: {setting}={rarer} makes it {_WANTED_PAUSES:.0%}; "
        f"or {otherwise}"
    )


def _rounded_up(value: float) -> int:
    unit = 10 ** max(math.floor(math.log10(value)), 0)
    return math.ceil(value / unit) * unit
