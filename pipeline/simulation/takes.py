"""The sequences of a simulation: what is to be filmed, and where it goes."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from pipeline.simulation.rig import Footage
from pipeline.simulation.scenes import SceneConfig, random_scene


class Take(Protocol):
    """One sequence to be filmed."""

    split: str
    sequence: str

    def footage(self, rng: np.random.Generator) -> Footage:
        """Its light; what is random about it is drawn from `rng`."""
        ...


@dataclass(frozen=True, slots=True)
class SceneTake:
    """A generated scene."""

    split: str
    sequence: str
    config: SceneConfig

    def footage(self, rng: np.random.Generator) -> Footage:
        """Draw the scene."""
        return random_scene(self.config, rng)


def scene_takes(config: SceneConfig) -> list[Take]:
    """The generated sequences of every split."""
    return [
        SceneTake(split, f"{split}_{index:04d}", config)
        for split, count in config.splits.items()
        for index in range(count)
    ]
