"""How large tiles may be in the memory there is, found by restoring one small tile and counting its bytes."""

import logging
import math
import weakref
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from model.tiling import GRID, SMALLEST_TILE, Frames, Restore, Tiling

logger = logging.getLogger(__name__)

TRIED = 64
"""Side of the tile that is tried. Of a larger one, a pixel takes a little less."""
SHARE = 0.6
"""Of the free memory that is planned for: kernels have work space of their own, and others want memory as well."""
FEWEST_FRAMES = 2
_COPIES = 4
"""Of a restored clip, in float32: the clip itself, its bands, frames that fade, frames on their way out."""


def fit_tiling(
    restore: Restore,
    blurry: Frames,
    voxels: Frames | None,
    tiling: Tiling,
    *,
    scale: int,
    device: torch.device,
    free_bytes: int,
    shorten: bool = True,
) -> Tiling:
    """The tiling with the largest tiles that memory allows; whole frames where it can.

    Args:
        blurry: (N, 3, H, W); voxels: (N, K, H / scale, W / scale), or None if `restore` takes none.
        tiling: with the clips as they should be; its tile is not looked at.
        free_bytes: memory of the device that may be taken.
        shorten: whether clips may become shorter where tiles would be so small that most of them is overlap.
    """
    height, width = blurry.shape[-2:]
    if max(height, width) <= TRIED:
        return replace(tiling, tile=None)
    clip = slice(0, min(tiling.num_frames, blurry.shape[0]))
    rows, columns = (min(TRIED // scale * scale or scale, side) for side in (height, width))
    tile = _on(device, blurry[clip, :, :rows, :columns])
    counts = None if voxels is None else _on(device, voxels[clip, :, : rows // scale, : columns // scale])
    each = peak_bytes(restore, tile, counts) / math.prod(tile.shape[-2:]) / tile.shape[1]
    found = largest(
        height, width, tiling, bytes_a_pixel=each, room=SHARE * free_bytes, scale=scale, shorten=shorten
    )
    logger.info(
        "%.0f bytes a pixel and frame, %.2f GB free: tiles of %s, clips of %d frames",
        each,
        free_bytes / 1e9,
        found.tile or "a frame",
        found.num_frames,
    )
    return found


def largest(
    height: int,
    width: int,
    tiling: Tiling,
    *,
    bytes_a_pixel: float,
    room: float,
    scale: int,
    shorten: bool = True,
) -> Tiling:
    """The largest tiles for frames of `height` x `width` so that one tile of a clip takes no more than `room` bytes."""
    unit = math.lcm(GRID, scale)
    least = -(-SMALLEST_TILE // unit) * unit
    frames = tiling.num_frames
    while True:
        left = (
            room - 4 * _COPIES * 3 * frames * height * width
        )  # what holds whole frames does not shrink with the tile
        pixels = max(left, 0) / (bytes_a_pixel * frames)
        if height * width <= pixels:
            return _with(tiling, None, frames)
        side = int(math.sqrt(pixels)) // unit * unit
        if side >= max(4 * tiling.overlap, least) or frames <= FEWEST_FRAMES or not shorten:
            return _with(tiling, max(side, least), frames)
        frames = max(frames // 2, FEWEST_FRAMES)


def _with(tiling: Tiling, tile: int | None, frames: int) -> Tiling:
    overlap = tiling.overlap if tile is None else min(tiling.overlap, tile // 2)
    overlap_frames = min(tiling.overlap_frames, frames // 2)
    return replace(tiling, tile=tile, overlap=overlap, num_frames=frames, overlap_frames=overlap_frames)


def peak_bytes(restore: Restore, blurry: Tensor, counts: Tensor | None) -> int:
    """The most bytes of tensors that are alive at any time while `restore` works, besides its weights and inputs."""
    with _Alive() as alive:
        restore(blurry, counts)
    return alive.peak


class _Alive(TorchDispatchMode):
    """Counts the storages that operators make, until each is dropped."""

    def __init__(self) -> None:
        super().__init__()
        self.peak = self._now = 0
        self._made: dict[int, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {
            id(leaf.untyped_storage()) for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)
        }
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor):
                self._count(tensor.untyped_storage(), given)
        self.peak = max(self.peak, self._now)
        return out

    def _count(self, storage: torch.UntypedStorage, given: set[int]) -> None:
        """A view of what was there before, a weight for example, is nothing new."""
        key = id(storage)
        if key in self._made or key in given:
            return
        self._made[key] = storage.nbytes()
        self._now += storage.nbytes()
        weakref.finalize(storage, self._drop, key)

    def _drop(self, key: int) -> None:
        self._now -= self._made.pop(key)


def _on(device: torch.device, values: Any) -> Tensor:
    """(T, ...) values as (1, T, ...) on the device."""
    return torch.as_tensor(values).to(device)[None]
