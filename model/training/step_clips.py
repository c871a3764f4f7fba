"""Which clips a step learns from, by name: what is drawn depends on (seed, step) only, so it can be said afterwards."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from model.training.phases import Phase, step_batches
from pipeline.clips import ClipSource


class StepClips:
    """Names the clips of any step.

    Args:
        phases: of the run.
        sources: of the phases.
        seed: that clips are drawn with.
        accumulate: batches of a step.
        world: processes.
    """

    def __init__(
        self,
        phases: Sequence[Phase],
        sources: Sequence[ClipSource],
        *,
        seed: int,
        accumulate: int = 1,
        world: int = 1,
    ) -> None:
        self.phases = phases
        self.sources = sources
        self.seed = seed
        self.accumulate = accumulate
        self.world = world

    def of_process(self, step: int, rank: int) -> list[dict[str, Any]]:
        """The clips that process `rank` takes in step `step` (from 0), as plain values.

        Returns:
            for each clip its running `number`, the `batch` of the step that it is in and its `place` there, its
            `sequence`, the `frames` [start, stop), and how it is cut and turned, `augmentation`.
        """
        return list(self._described(step, rank))

    def names(self, step: int) -> list[str]:
        """The clips that all processes take in a step, as "split/sequence 3..7", the first and the last frame."""
        return [name_of(clip) for rank in range(self.world) for clip in self._described(step, rank)]

    def _described(self, step: int, rank: int) -> Iterator[dict[str, Any]]:
        how = {"rank": rank, "world": self.world, "accumulate": self.accumulate}
        for batch, (source, numbers) in enumerate(step_batches(self.phases, self.sources, step, **how)):
            for place, number in enumerate(numbers):
                draw = source.draw(number, self.seed)
                first = draw.clip.first_frame
                yield {
                    "number": number,
                    "batch": batch,
                    "place": place,
                    "sequence": source.names[draw.clip.sequence],
                    "frames": [first, first + source.config.num_frames],
                    "augmentation": asdict(draw.augmentation),
                }


def name_of(clip: Mapping[str, Any]) -> str:
    """A described clip in short."""
    start, stop = clip["frames"]
    return f"{clip['sequence']} {start}..{stop - 1}"
