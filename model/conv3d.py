"""A 3D convolution that half precision on a CPU does not spoil."""

from torch import Tensor, nn

from model.flow import at_least_float32, full_precision


class Conv3d(nn.Conv3d):
    """`nn.Conv3d`, on a CPU always in float32 or wider.

    PyTorch's backward of 3D convolutions in bfloat16 (seen in 2.13.0 and 2.14.1, oneDNN) gives weight gradients that
    are wrong by percents or not finite, without a word.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T, H, W) -> (B, C', T', H', W')."""
        if x.device.type != "cpu" or self.weight.dtype.itemsize < 4:
            return super().forward(x)
        with full_precision(x):
            return super().forward(at_least_float32(x))
