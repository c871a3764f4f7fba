"""Which clips a step learns from, by name: what is drawn depends on (seed, step) only, so it can be said afterwards."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from pipeline.clips import ClipSource, numbers_of


class StepClips:
    """Names the clips of any step.

    Args:
        source: that they are drawn from.
        seed: that they are drawn with.
        batch_size: clips that a process takes at once.
        accumulate: batches of a step.
        world: processes.
    """

    def __init__(
        self, source: ClipSource, *, seed: int, batch_size: int, accumulate: int, world: int
    ) -> None:
        self.source = source
        self.seed = seed
        self.batch_size = batch_size
        self.accumulate = accumulate
        self.world = world

    def of_process(self, step: int, rank: int) -> list[dict[str, Any]]:
        """The clips that process `rank` takes in step `step` (from 0), as plain values.

        Returns:
            for each clip its running `number`, the `batch` of the step that it is in and its `place` there, its
            `sequence`, the `frames` [start, stop), and how it is cut and turned, `augmentation`.
        """
        return [
            self._describe(number, batch, place)
            for batch in range(self.accumulate)
            for place, number in enumerate(self._numbers(step, batch, rank))
        ]

    def names(self, step: int) -> list[str]:
        """The clips that all processes take in a step, as "split/sequence 3..7", the first and the last frame."""
        return [
            name_of(self._describe(number, batch, place))
            for batch in range(self.accumulate)
            for rank in range(self.world)
            for place, number in enumerate(self._numbers(step, batch, rank))
        ]

    def _numbers(self, step: int, batch: int, rank: int) -> range:
        how = {"rank": rank, "world": self.world, "accumulate": self.accumulate}
        return numbers_of(step, batch, self.batch_size, **how)

    def _describe(self, number: int, batch: int, place: int) -> dict[str, Any]:
        draw = self.source.draw(number, self.seed)
        first = draw.clip.first_frame
        return {
            "number": number,
            "batch": batch,
            "place": place,
            "sequence": self.source.names[draw.clip.sequence],
            "frames": [first, first + self.source.config.num_frames],
            "augmentation": asdict(draw.augmentation),
        }


def name_of(clip: Mapping[str, Any]) -> str:
    """A described clip in short."""
    start, stop = clip["frames"]
    return f"{clip['sequence']} {start}..{stop - 1}"
