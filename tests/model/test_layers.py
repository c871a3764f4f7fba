import pytest
import torch
from torch import Tensor

from model.layers import AttentionBlock, AttentionGroup, DropPath, WindowAttention
from model.windows import partition, plan_windows, reverse


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
    windows = partition(torch.randn(2, *size, channels, dtype=torch.float64), plan.window)
    out = attention(windows, plan)
    bias = attention.relative_position_bias_table[attention.relative_position_index].permute(2, 0, 1)
    for at in [(0, 0, 0, 0), (1, 1, 0, 1), (0, 1, 1, 2), (1, 0, 1, 2)]:
        x = windows[at]
        region = plan.regions[tuple(int(i == n - 1) for i, n in zip(at[1:], windows.shape[1:4], strict=True))]
        mask = (region[:, None] != region) * -100.0
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
