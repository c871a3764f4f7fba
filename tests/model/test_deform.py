import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors import safe_open

from model.deform import deform_conv2d

_CASES = [
    "basic_3x3",
    "vrt_like_g1_og16",
    "vrt_like_g2_og8",
    "no_mask_no_bias_stride2_dil2",
    "outside_image",
    "kernel_1x3_aniso",
]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("case", _CASES)
def test_matches_the_reference_operator_and_its_gradients(
    case: str, dtype: torch.dtype, golden_folder: Path
) -> None:
    with safe_open(golden_folder / "deform_conv" / f"{case}.safetensors", framework="pt") as file:
        tensors = {key: file.get_tensor(key).to(dtype) for key in file.keys()}  # noqa: SIM118
        params = json.loads(file.metadata()["params"])
    names = [n for n in ("input", "offset", "weight", "bias", "mask") if n in tensors]
    arguments = {name: tensors[name].requires_grad_() for name in names}
    geometry = {name: tuple(params[name]) for name in ("stride", "padding", "dilation")}

    out = deform_conv2d(arguments.pop("input"), **arguments, **geometry)
    out.backward(tensors["grad_output"])

    exact = dtype == torch.float64
    assert (out - tensors["output"]).abs().max() < (1e-9 if exact else 2e-5)
    for name in names:
        want = tensors[f"grad_{name}"]
        limit = 1e-9 if exact else 2e-4 * want.abs().max()
        assert (tensors[name].grad - want).abs().max() < limit, name


def test_without_offsets_it_is_a_convolution() -> None:
    torch.manual_seed(0)
    x, weight, bias = torch.randn(2, 4, 7, 9), torch.randn(6, 2, 3, 3), torch.randn(6)
    offset = torch.zeros(2, 2 * 2 * 9, 4, 5)
    out = deform_conv2d(x, offset, weight, bias, stride=2, padding=1)
    torch.testing.assert_close(
        out, F.conv2d(x, weight, bias, stride=2, padding=1, groups=2), atol=1e-4, rtol=0
    )


def test_offsets_are_y_first_and_outside_counts_as_zero() -> None:
    x = torch.arange(12.0).view(1, 1, 3, 4)
    offset = torch.tensor([1.0, 0.5]).view(1, 2, 1, 1).expand(1, 2, 3, 4)  # down 1, right half a pixel
    out = deform_conv2d(x, offset, torch.ones(1, 1, 1, 1))
    want = torch.tensor([[4.5, 5.5, 6.5, 3.5], [8.5, 9.5, 10.5, 5.5], [0.0, 0.0, 0.0, 0.0]])
    torch.testing.assert_close(out[0, 0], want, atol=1e-5, rtol=0)


def test_samples_images_of_one_row() -> None:
    x = torch.tensor([2.0, 4.0, 6.0]).view(1, 1, 1, 3)
    offset = torch.tensor([0.25, 0.0]).view(1, 2, 1, 1).expand(1, 2, 1, 3)
    out = deform_conv2d(x, offset, torch.ones(1, 1, 1, 1))
    torch.testing.assert_close(out.flatten(), torch.tensor([1.5, 3.0, 4.5]))


def test_samples_half_precision_at_float32_positions() -> None:
    # At 300 pixels bfloat16 cannot tell 300.25 from 300.
    x = torch.arange(304.0).view(1, 1, 1, 304).expand(1, 1, 2, 304)
    offset = torch.tensor([0.0, 0.25]).view(1, 2, 1, 1).expand(1, 2, 2, 304)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = deform_conv2d(x - 300, offset, torch.ones(1, 1, 1, 1))
    assert abs(out[0, 0, 0, 300].item() - 0.25) < 1e-3


@pytest.mark.parametrize(
    ("offset", "weight", "mask", "message"),
    [
        ((1, 18, 5, 5), (4, 3, 3, 3), None, "does not divide 4 input channels"),
        ((1, 17, 5, 5), (4, 4, 3, 3), None, "17 offset channels"),
        ((1, 18, 4, 5), (4, 4, 3, 3), None, "does not cover an output of 5x5"),
        ((1, 18, 5, 5), (4, 4, 3, 3), (1, 8, 5, 5), "mask"),
    ],
)
def test_refuses_shapes_that_do_not_fit(
    offset: tuple[int, ...], weight: tuple[int, ...], mask: tuple[int, ...] | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        deform_conv2d(
            torch.zeros(1, 4, 5, 5),
            torch.zeros(offset),
            torch.zeros(weight),
            mask=None if mask is None else torch.zeros(mask),
            padding=1,
        )
