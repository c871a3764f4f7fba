import pytest
import torch

from model.conv3d import Conv3d


@pytest.mark.parametrize(
    ("channels", "kernel", "padding"),
    [((27, 96), (1, 3, 3), (0, 1, 1)), ((96, 3), (1, 3, 3), (0, 1, 1)), ((24, 24), 3, 1)],
)
def test_half_precision_on_a_cpu_leaves_the_gradient_right(
    channels: tuple[int, int], kernel: int | tuple[int, ...], padding: int | tuple[int, ...]
) -> None:
    torch.manual_seed(0)
    convolution = Conv3d(*channels, kernel, padding=padding)
    x = torch.rand(1, channels[0], 2, 64, 64)
    want = torch.autograd.grad(convolution(x).square().mean(), convolution.weight)[0]
    for narrowed in (x, x.bfloat16()):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            out = convolution(narrowed)
        (got,) = torch.autograd.grad(out.float().square().mean(), convolution.weight)
        assert (got - want).abs().max() <= 0.01 * want.abs().max()


def test_is_the_convolution_of_torch_under_its_names() -> None:
    ours, torchs = Conv3d(4, 6, 3, padding=1), torch.nn.Conv3d(4, 6, 3, padding=1)
    ours.load_state_dict(torchs.state_dict(), strict=True)
    x = torch.randn(2, 4, 3, 5, 5)
    assert torch.equal(ours(x), torchs(x))
    assert ours.bfloat16()(x.bfloat16()).dtype == torch.bfloat16
