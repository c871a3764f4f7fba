from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from model.layers import (
    AttentionBlock,
    AttentionGroup,
    DropPath,
    WindowAttention,
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


def _slow_attention(q: Tensor, k: Tensor, v: Tensor, added: Tensor | float) -> Tensor:
    """(N, heads, d) each; `added` to the logits (heads, N, N)."""
    logits = torch.einsum("nhd,mhd->hnm", q, k) * q.shape[-1] ** -0.5 + added
    return torch.einsum("hnm,mhd->nhd", logits.softmax(-1), v).flatten(1)


@pytest.mark.parametrize("mutual", [False, True])
def test_attention_of_shifted_windows_matches_a_plain_version(mutual: bool) -> None:
    torch.manual_seed(0)
    size, channels, heads = (4, 4, 6), 8, 2
    attention = WindowAttention(channels, (2, 2, 2), heads, mutual=mutual).double()
    torch.nn.init.normal_(attention.relative_position_bias_table)
    plan = plan_windows(size, (2, 2, 2), shifted=True, device="cpu")
    masks = _slow_masks(size, plan.window, plan.shift).double()
    windows = partition(torch.randn(2, *size, channels, dtype=torch.float64), plan.window)
    out = attention(windows, plan)
    bias = attention.relative_position_bias_table[attention.relative_position_index].permute(2, 0, 1)
    for at in [(0, 0, 0, 0), (1, 1, 0, 1), (0, 1, 1, 2), (1, 0, 1, 2)]:
        x, mask = windows[at], masks[at[1:]]
        q, k, v = attention.qkv_self(x).view(8, 3, heads, 4).unbind(1)
        want = _slow_attention(q, k, v, bias + mask)
        if mutual:
            x = x + torch.cat([attention.position_bias[0]] * 2)
            q, k, v = attention.qkv_mut(x).view(8, 3, heads, 4).unbind(1)
            first = _slow_attention(q[4:], k[:4], v[:4], mask[:4, :4])
            second = _slow_attention(q[:4], k[4:], v[4:], mask[:4, :4])
            want = torch.cat([torch.cat([first, second]), want], dim=-1)
        torch.testing.assert_close(out[at], attention.proj(want))


def test_padding_takes_part_as_zero_tokens_and_is_cropped() -> None:
    torch.manual_seed(0)
    block = AttentionBlock(8, (2, 4, 4), 2, 2.0, mutual=True, drop_path=0.0).double()
    x = torch.randn(1, 3, 5, 6, 8, dtype=torch.float64)
    plan = plan_windows((3, 5, 6), (2, 4, 4), shifted=True, device="cpu")
    out = block(x, plan)
    normed = torch.zeros(1, 4, 8, 8, 8, dtype=torch.float64)
    normed[:, :3, :5, :6] = block.norm1(x)
    normed = normed.roll((-1, -2, -2), (1, 2, 3))
    attended = reverse(block.attn(partition(normed, (2, 4, 4)), plan), (2, 4, 4)).roll((1, 2, 2), (1, 2, 3))
    want = x + attended[:, :3, :5, :6]
    torch.testing.assert_close(out, want + block.mlp(block.norm2(want)))


def test_every_second_block_shifts() -> None:
    torch.manual_seed(0)
    group = AttentionGroup(8, (1, 2, 2), 2, 2.0, mutual=False, drop_paths=[0.0, 0.0])
    x = torch.randn(1, 1, 8, 8, 8)
    moved = x.clone()
    moved[:, :, 0, 0, 0] += 1
    (seen,) = (group(moved) - group(x)).abs().sum(-1).nonzero()[:, 2:].unique(dim=0).unsqueeze(0)
    # Block 1 mixes rows and columns 0..1; the shifted block 2 carries that to 0..2, cut off from the far side.
    assert sorted(map(tuple, seen.tolist())) == [(r, c) for r in range(3) for c in range(3)]


def test_drop_path_drops_whole_samples_only_in_training() -> None:
    torch.manual_seed(0)
    drop = DropPath(0.5)
    x = torch.ones(64, 2, 3)
    out = drop(x)
    assert set(out.unique().tolist()) == {0.0, 2.0}
    assert torch.equal(out[:, 0, 0].view(-1, 1, 1).expand_as(out), out)
    assert torch.equal(drop.eval()(x), x)
