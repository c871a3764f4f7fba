"""Instants inside the exposure, for networks that were trained to restore more than its middle."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from model.checkpoint import CheckpointInfo
from model.restorer import Restorer
from model.tiling import Restore
from pipeline.errors import UsageError

MIDDLE = 0.5


def parse_instants(text: str) -> tuple[float, ...]:
    """The instants of `0.1,0.5,0.9`, in order of time: 0 is the beginning of the exposure and 1 its end.

    Raises:
        UsageError: one is no number between 0 and 1, or is there twice.
    """
    try:
        found = [float(part) for part in text.split(",")]
    except ValueError:
        found = [math.nan]
    if not all(0 < instant < 1 for instant in found):
        raise UsageError(f"--at {text}: expected numbers above 0 and below 1", "for example --at 0.1,0.5,0.9")
    if len(set(found)) < len(found):
        raise UsageError(f"--at {text}: an instant is there twice", "name each of them once")
    return tuple(sorted(found))


def suffix_of(instant: float) -> str:
    """What is added to the name of a frame: `_at0.10`, with more digits where the instant has more."""
    short = f"{instant:.2f}"
    return f"_at{short if float(short) == instant else repr(instant)}"


def names_at(frames: Sequence[str], instants: Sequence[float]) -> list[list[str]]:
    """The names of what is restored of each frame: its own, or one for each instant."""
    return [[f"{frame}{suffix_of(instant)}" for instant in instants] or [frame] for frame in frames]


def instants_of(info: CheckpointInfo, at: Sequence[float]) -> tuple[float | None, ...]:
    """What a network is told to restore: the instants `at`; without, the middle, or None if it is told none.

    Raises:
        UsageError: it is told none, and `at` names some.
    """
    if info.config["network"].get("instants", False):
        return tuple(at) or (MIDDLE,)
    if at:
        raise UsageError(
            f"{info.path}: restores one instant of each exposure, the one it was trained on, and none that --at names",
            "train a network that is told the instant: spk train CONFIG network.instants=true …; or leave --at out",
        )
    return (None,)


def at_instant(restorer: Restorer, instant: float | None) -> Restore:
    """The network as it restores one instant of every exposure; None is the one that it was trained on."""
    if instant is None:
        return restorer
    told: Callable[..., Tensor] = restorer

    def restore(blurry: Tensor, counts: Tensor | None) -> Tensor:
        instants = torch.full(blurry.shape[:2], instant)  # (B, T), on the CPU, where it is looked at
        return told(blurry, counts, instants=instants)

    return restore
