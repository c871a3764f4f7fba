"""Window attention in plain operators against the one that the network uses."""

import pytest
import torch

from model.plain_attention import plain_window_attention
from model.window_attention import window_attention
from model.windows import plan_windows

HEADS, CHANNELS = 2, 8


@pytest.mark.parametrize("mutual", [False, True])
@pytest.mark.parametrize("shifted", [False, True])
@pytest.mark.parametrize("size", [(4, 6, 8), (2, 6, 4), (2, 3, 4), (2, 3, 8)])
def test_attends_as_the_network_does(size: tuple[int, int, int], shifted: bool, mutual: bool) -> None:
    plan = plan_windows(size, (2, 3, 4), shifted=shifted, device="cpu")
    counts = [side // window for side, window in zip(size, plan.window, strict=True)]
    tokens = 2 * 3 * 4
    generator = torch.Generator().manual_seed(0)
    qkv = torch.randn(2, *counts, tokens, 3 * CHANNELS, generator=generator)
    bias = None if mutual else torch.randn(HEADS, tokens, tokens, generator=generator)
    expected = window_attention(qkv, bias, plan.regions, HEADS, mutual=mutual)
    found = plain_window_attention(qkv, bias, plan.regions, HEADS, mutual=mutual)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def test_the_mask_matters() -> None:
    plan = plan_windows((2, 6, 8), (2, 3, 4), shifted=True, device="cpu")
    qkv = torch.randn(1, 1, 2, 2, 24, 3 * CHANNELS, generator=torch.Generator().manual_seed(0))
    masked = plain_window_attention(qkv, None, plan.regions, HEADS, mutual=True)
    unmasked = plain_window_attention(qkv, None, None, HEADS, mutual=True)
    assert torch.equal(masked[:, :, 0, 0], unmasked[:, :, 0, 0])
    assert all(
        (masked[:, :, i, j] - unmasked[:, :, i, j]).abs().max() > 0.01 for i, j in ((0, 1), (1, 0), (1, 1))
    )
