"""Tiles as large as memory allows."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from model.deblurring import room
from model.deblurring.room import fit_tiling, largest, peak_bytes
from model.tiling import Tiling

CPU = torch.device("cpu")
TILING = Tiling(num_frames=5, overlap_frames=2)


class Holding(nn.Module):
    """Holds twice its float32 frames at its peak: the sum and what is added; weights are none of it."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3, 1, 1))

    def forward(self, blurry, counts):
        total = blurry.float()
        for _ in range(3):
            more = total * self.weight.view(1, 3, 1, 1)
            total = total.add_(more)
            del more
        return total


def test_counts_what_is_alive_at_the_same_time():
    clip = torch.zeros(1, 5, 3, 64, 64, dtype=torch.uint8)
    with torch.inference_mode():
        assert peak_bytes(Holding(), clip, None) == 2 * 4 * clip.numel()
        assert peak_bytes(lambda blurry, counts: blurry[:, 1:], clip, None) == 0


def needed(tiling, height, width, each):
    side = tiling.tile or math.inf
    whole = 4 * 4 * 3 * tiling.num_frames * height * width
    return whole + each * tiling.num_frames * min(side * side, height * width)


@pytest.mark.parametrize("scale", [1, 2, 3])
@pytest.mark.parametrize("gigabytes", [1, 2, 4, 9, 60])
def test_tiles_keep_within_the_room_there_is(gigabytes, scale):
    found = largest(720, 1280, TILING, bytes_a_pixel=11_000, room=gigabytes * 1e9, scale=scale)
    assert needed(found, 720, 1280, 11_000) <= gigabytes * 1e9
    assert found.num_frames == (2 if gigabytes == 1 else 5)
    if found.tile is not None:
        assert found.tile % math.lcm(8, scale) == 0
        larger = replace(found, tile=found.tile + math.lcm(8, scale))
        assert needed(larger, 720, 1280, 11_000) > gigabytes * 1e9
    else:
        assert gigabytes == 60


def test_clips_are_shortened_before_tiles_are_all_overlap():
    found = largest(720, 1280, TILING, bytes_a_pixel=11_000, room=0.7e9, scale=1)
    assert found.num_frames == 2 and found.overlap_frames <= 1 and found.tile >= 64
    kept = largest(720, 1280, TILING, bytes_a_pixel=11_000, room=0.7e9, scale=1, shorten=False)
    assert kept.num_frames == 5 and kept.tile < 128


def test_there_is_always_a_tile_to_try():
    found = largest(720, 1280, TILING, bytes_a_pixel=11_000, room=0, scale=1)
    assert found.tile == 64 and found.overlap <= 32


def test_a_small_tile_is_tried_to_choose_a_large_one(monkeypatch):
    blurry = torch.zeros(9, 3, 256, 320, dtype=torch.uint8)
    seen = []

    def restore(clip, counts):
        seen.append(tuple(clip.shape))
        return Holding()(clip, counts)

    fit = {"scale": 1, "device": CPU}
    with torch.inference_mode():
        assert fit_tiling(restore, blurry, None, TILING, free_bytes=10**9, **fit).tile is None
        whole = 4 * 4 * 3 * 5 * 256 * 320
        for side in (64, 128, 192):
            free = (whole + 24.001 * 5 * side**2) / room.SHARE
            found = fit_tiling(restore, blurry, None, TILING, free_bytes=free, shorten=False, **fit)
            assert found.tile == side
    assert set(seen) == {(1, 5, 3, 64, 64)}


def test_small_frames_are_taken_whole_without_trying():
    blurry = torch.zeros(9, 3, 48, 64, dtype=torch.uint8)
    assert fit_tiling(None, blurry, None, TILING, scale=1, device=CPU, free_bytes=0).tile is None
