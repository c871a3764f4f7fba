from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from model.windows import (
    partition,
    plan_windows,
    position_encoding,
    relative_position_index,
    reverse,
    wrap_regions,
)


def test_partition_keeps_neighbours_together_and_reverses() -> None:
    x = torch.arange(2 * 4 * 4 * 6).view(2, 4, 4, 6, 1).float()
    windows = partition(x, (2, 2, 3))
    assert windows.shape == (2, 2, 2, 2, 12, 1)
    assert torch.equal(windows[1, 1, 0, 1, :, 0], x[1, 2:4, 0:2, 3:6, 0].flatten())
    assert torch.equal(reverse(windows, (2, 2, 3)), x)


@pytest.mark.parametrize("window", [(6, 8, 8), (2, 8, 8), (1, 8, 8)])
def test_index_has_the_published_values(window: tuple[int, int, int], golden_folder: Path) -> None:
    want = load_file(golden_folder / "vrt" / "official_buffers_deblur.safetensors")
    name = f"relative_position_index_{'x'.join(map(str, window))}"
    assert torch.equal(relative_position_index(window), want[name].long())


def test_encoding_has_the_published_values(golden_folder: Path) -> None:
    want = load_file(golden_folder / "vrt" / "official_buffers_deblur.safetensors")["position_bias_8x8_dim96"]
    torch.testing.assert_close(position_encoding(8, 8, 96), want, atol=1e-6, rtol=0)


def test_index_numbers_each_displacement_once() -> None:
    window = (2, 3, 2)
    index = relative_position_index(window)
    tokens = [(d, h, w) for d in range(2) for h in range(3) for w in range(2)]
    seen: dict[int, tuple[int, ...]] = {}
    for i, a in enumerate(tokens):
        for j, b in enumerate(tokens):
            step = tuple(p - q for p, q in zip(a, b, strict=True))
            assert seen.setdefault(int(index[i, j]), step) == step
    assert len(seen) == 3 * 5 * 3
    assert index.max() == 3 * 5 * 3 - 1


def test_a_window_shrinks_to_a_short_axis_and_is_not_shifted_there() -> None:
    plan = plan_windows((5, 16, 8), (6, 8, 8), shifted=True, device="cpu")
    assert (plan.window, plan.shift) == ((5, 8, 8), (0, 4, 0))
    plan = plan_windows((7, 16, 16), (6, 8, 8), shifted=True, device="cpu")
    assert (plan.window, plan.shift) == ((6, 8, 8), (3, 4, 4))
    assert plan_windows((7, 16, 16), (6, 8, 8), shifted=False, device="cpu").regions is None


def _slow_masks(size: tuple[int, ...], window: tuple[int, ...], shift: tuple[int, ...]) -> Tensor:
    """One mask per window, from a map of the regions of the whole video, as (nD, nH, nW, N, N)."""
    regions = torch.zeros(size)
    for axis in range(3):
        if shift[axis]:
            region = torch.zeros(size[axis])
            region[size[axis] - window[axis] :] = 1
            region[size[axis] - shift[axis] :] = 2
            regions = regions * 3 + region.view([-1 if i == axis else 1 for i in range(3)])
    windows = partition(regions.view(1, *size, 1), window)[0, ..., 0]
    return (windows.unsqueeze(-1) != windows.unsqueeze(-2)).float() * -100


@pytest.mark.parametrize("shift", [(1, 2, 1), (0, 2, 1), (1, 0, 0)])
def test_eight_patterns_stand_for_those_of_every_window(shift: tuple[int, int, int]) -> None:
    size, window = (4, 12, 6), (2, 4, 2)
    regions = wrap_regions(window, shift, "cpu")
    masks = (regions.unsqueeze(-1) != regions.unsqueeze(-2)) * -100.0
    want = _slow_masks(size, window, shift)
    for d in range(2):
        for h in range(3):
            for w in range(3):
                last = int(d == 1), int(h == 2), int(w == 2)
                assert torch.equal(masks[last], want[d, h, w]), (d, h, w)
