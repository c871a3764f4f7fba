"""The phases of a run: steps whose batches have one size, and reading them one after the other."""

import itertools
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from model.parallel import Parallel
from model.training.config import PhaseConfig, TrainConfig
from model.training.events import Seen
from pipeline.clips import ClipConfig, ClipSource, batch_numbers, read_ahead
from pipeline.errors import SpkError
from pipeline.store import Store


@dataclass(frozen=True, kw_only=True, slots=True)
class Phase:
    """Steps [start, stop), counted from 0, whose batches have one size.

    Attributes:
        clip: how clips are cut.
        batch_size: clips a process takes at once.
    """

    start: int
    stop: int
    clip: ClipConfig
    batch_size: int

    @property
    def pixels(self) -> int:
        """RGB pixels of a batch."""
        return self.batch_size * self.clip.num_frames * self.clip.crop**2

    def __str__(self) -> str:
        clips = "1 clip" if self.batch_size == 1 else f"{self.batch_size} clips"
        size = f"{self.clip.num_frames} frames of {self.clip.crop}x{self.clip.crop}"
        return f"steps {self.start + 1} to {self.stop}: batches of {clips}, {size}"


def phases_of(config: TrainConfig) -> tuple[Phase, ...]:
    """The phases of the config's steps, in order and without gaps; phases that start after the last step are left out.

    Which phase a step is in, and what came before it, does not depend on `config.steps`.
    """
    usual = [] if config.phases and config.phases[0].start == 0 else [PhaseConfig(start=0)]
    changes = [change for change in (*usual, *config.phases) if change.start < config.steps]
    stops = [*(change.start for change in changes[1:]), config.steps]
    return tuple(_phase(config, change, stop) for change, stop in zip(changes, stops, strict=True))


def largest_phase(config: TrainConfig) -> Phase:
    """The phase with most pixels in a batch: the one that memory must suffice for."""
    return max(phases_of(config), key=lambda phase: phase.pixels)


def sources_of(
    phases: Sequence[Phase], store: Store, voxels: str, *, instants: bool = False
) -> list[ClipSource]:
    """The training clips of each phase, checked; phases that cut them alike share one source.

    Args:
        voxels, instants: as in `ClipSource`.

    Raises:
        UsageError, StoreError, TrainingError: as `ClipSource`; with several phases it is said which one.
    """
    sources: dict[ClipConfig, ClipSource] = {}
    for phase in phases:
        if phase.clip not in sources:
            try:
                sources[phase.clip] = ClipSource(store, "train", voxels, phase.clip, instants=instants)
            except SpkError as error:
                if len(phases) == 1:
                    raise
                raise type(error)(f"phase from step {phase.start}: {error.problem}", error.fix) from error
    return [sources[phase.clip] for phase in phases]


def step_batches(
    phases: Sequence[Phase],
    sources: Sequence[ClipSource],
    step: int,
    *,
    rank: int = 0,
    world: int = 1,
    accumulate: int = 1,
) -> Iterator[tuple[ClipSource, range]]:
    """Where the batches of one step of one process come from: a source, and the running numbers of the clips.

    Args:
        phases: from step 0 on, with their `sources`.
        step: from 0.
        rank, world, accumulate: as in `pipeline.clips.batches`.
    """
    first = 0  # clips that all processes took in the phases before
    for phase, source in zip(phases, sources, strict=True):
        if step < phase.stop:
            numbers = batch_numbers(
                [step - phase.start],
                batch_size=phase.batch_size,
                rank=rank,
                world=world,
                accumulate=accumulate,
                first=first,
            )
            yield from zip(itertools.repeat(source), numbers)
            return
        first += (phase.stop - phase.start) * phase.batch_size * accumulate * world


def phase_batches(
    phases: Sequence[Phase],
    sources: Sequence[ClipSource],
    place: Parallel,
    *,
    seed: int,
    start_step: int,
    accumulate: int = 1,
    **reading: Any,
) -> Generator[Any, None, None]:
    """The batches of this process from `start_step` to the end of the last phase, read ahead across their borders.

    Args:
        phases: from step 0 on.
        sources: of the phases.
        accumulate: as in `pipeline.clips.batches`.
        reading: `workers`, `pinned`, `deliver` and `times` of `pipeline.clips.read_ahead`.
    """

    steps = range(start_step, phases[-1].stop)
    how = {"rank": place.rank, "world": place.world, "accumulate": accumulate}
    wanted = itertools.chain.from_iterable(step_batches(phases, sources, step, **how) for step in steps)
    return read_ahead(wanted, seed=seed, accumulate=accumulate, **reading)


def seen_after(phases: Sequence[Phase], sources: Sequence[ClipSource], batches: int, steps: int) -> Seen:
    """What was learnt from in the first `steps` steps.

    Args:
        sources: of the phases.
        batches: of a step, of all processes.
    """
    clips, epochs = 0, 0.0
    for phase, source in zip(phases, sources, strict=True):
        taken = max(min(steps, phase.stop) - phase.start, 0) * phase.batch_size * batches
        clips, epochs = clips + taken, epochs + taken / len(source)
    return Seen(clips, epochs)


def _phase(config: TrainConfig, change: PhaseConfig, stop: int) -> Phase:
    clip = replace(
        config.clip,
        crop=change.crop or config.clip.crop,
        num_frames=change.num_frames or config.clip.num_frames,
    )
    return Phase(start=change.start, stop=stop, clip=clip, batch_size=change.batch_size or config.batch_size)
