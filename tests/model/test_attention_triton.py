"""The kernels against plain float64 attention: on CUDA, and on the CPU in triton's interpreter, in its own process."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton", reason="triton comes with the CUDA builds of torch")

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"

if INTERPRETED:
    from triton.runtime import interpreter

    def _patch(tensor, scope, patch=interpreter._patch_lang_tensor) -> None:
        """numpy 2.4 no longer turns arrays of one number into one, which the interpreter needs for ranges."""
        patch(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: self.handle.data.item())

    interpreter._patch_lang_tensor = _patch

needs_device = pytest.mark.skipif(
    not INTERPRETED and not torch.cuda.is_available(), reason="neither CUDA nor TRITON_INTERPRET=1"
)


def plain_attention(
    qkv: Tensor, bias: Tensor | None, regions: Tensor | None, num_heads: int, *, mutual: bool
) -> Tensor:
    """Softmax attention with explicit scores and a mask for every window."""
    _, depth, height, width, tokens, _ = qkv.shape
    q, k, v = qkv.unflatten(-1, (3, num_heads, -1)).permute(5, 0, 1, 2, 3, 6, 4, 7)
    mask = qkv.new_zeros(depth, height, width, tokens, tokens)
    if regions is not None:
        apart = regions[..., :, None] != regions[..., None, :]
        for z in range(depth):
            for y in range(height):
                for x in range(width):
                    mask[z, y, x] = (
                        -100.0 * apart[int(z == depth - 1), int(y == height - 1), int(x == width - 1)]
                    )

    def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
        logits = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5 + mask.unsqueeze(-3)
        return (logits if bias is None else logits + bias).softmax(-1) @ v

    if mutual:
        half = tokens // 2
        (q1, q2), (k1, k2), (v1, v2) = (x.split(half, dim=-2) for x in (q, k, v))
        mask = mask[..., :half, :half]
        out = torch.cat((attend(q2, k1, v1, mask), attend(q1, k2, v2, mask)), dim=-2)
    else:
        out = attend(q, k, v, mask)
    return out.transpose(-2, -3).flatten(-2)


def make_inputs(
    windows: tuple[int, ...],
    tokens: int,
    heads: int,
    dim: int,
    dtype: torch.dtype,
    *,
    bias: bool,
    regions: bool,
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    generator = torch.Generator().manual_seed(tokens + dim)
    qkv = torch.randn(*windows, tokens, 3 * heads * dim, generator=generator).to(dtype)
    table = torch.randn(heads, tokens, tokens, generator=generator) if bias else None
    numbers = None
    if regions:
        numbers = torch.randint(0, 3, (2, 2, 2, tokens), generator=generator, dtype=torch.int32)
        numbers[0, 0, 0] = 0
    return tuple(None if x is None else x.to(DEVICE) for x in (qkv, table, numbers))


def gradients(attention, qkv: Tensor, bias: Tensor | None, regions: Tensor | None, heads: int, mutual: bool):
    """The result and the gradients of qkv and the bias, for a fixed gradient of the result."""
    leaves = [x.detach().requires_grad_() for x in (qkv, bias) if x is not None]
    out = attention(leaves[0], leaves[1] if bias is not None else None, regions, heads, mutual=mutual)
    weight = torch.linspace(-1, 1, out.numel(), device=out.device).view(out.shape).sin_().to(out.dtype)
    return out.detach(), *torch.autograd.grad((out * weight).sum(), leaves)


def assert_agree(ours, plain, tolerance: float) -> None:
    for value, expected in zip(ours, plain, strict=True):
        torch.testing.assert_close(
            value.double(), expected, rtol=0, atol=tolerance * expected.abs().max().item()
        )


CASES = {
    "all eight patterns": ((1, 2, 2, 2), 24, 2, 16, False),
    "several tiles with a rest": ((1, 1, 2, 1), 136, 1, 20, False),
    "whole tiles": ((2, 1, 1, 2), 128, 2, 16, False),
    "narrow heads": ((1, 1, 3, 1), 70, 3, 6, False),
    "wide heads": ((1, 1, 1, 2), 24, 1, 40, False),
    "mutual, all eight patterns": ((1, 2, 2, 2), 24, 2, 16, True),
    "mutual, whole tiles": ((2, 1, 2, 1), 128, 1, 20, True),
    "mutual, several tiles with a rest": ((1, 1, 1, 2), 140, 1, 6, True),
}


@needs_device
@pytest.mark.parametrize(
    ("case", "with_regions"),
    [*((case, True) for case in CASES), ("whole tiles", False), ("mutual, whole tiles", False)],
)
def test_float32_agrees_with_plain_attention_in_float64(case, with_regions):
    from model.attention_triton import window_attention

    windows, tokens, heads, dim, mutual = CASES[case]
    qkv, bias, regions = make_inputs(
        windows, tokens, heads, dim, torch.float32, bias=not mutual, regions=with_regions
    )
    ours = gradients(window_attention, qkv, bias, regions, heads, mutual)
    wide = [None if x is None else x.double() for x in (qkv, bias)]
    assert_agree(ours, gradients(plain_attention, *wide, regions, heads, mutual), 3e-6)
    assert all(x.dtype == torch.float32 for x in ours)


@needs_device
@pytest.mark.parametrize(
    "dtype",
    [
        pytest.param(
            torch.bfloat16,
            marks=pytest.mark.skipif(
                INTERPRETED, reason="the interpreter multiplies the bits of bfloat16 as integers"
            ),
        ),
        torch.float16,
    ],
    ids=str,
)
@pytest.mark.parametrize(
    "case",
    [
        "all eight patterns",
        "several tiles with a rest",
        "whole tiles",
        "mutual, whole tiles",
        "mutual, several tiles with a rest",
    ],
)
def test_half_precision_agrees_within_its_rounding(case, dtype):
    from model.attention_triton import window_attention

    windows, tokens, heads, dim, mutual = CASES[case]
    qkv, bias, regions = make_inputs(windows, tokens, heads, dim, dtype, bias=not mutual, regions=True)
    out, *grads = gradients(window_attention, qkv, bias, regions, heads, mutual)
    wide = [None if x is None else x.double() for x in (qkv, bias)]
    assert_agree(
        (out, *grads),
        gradients(plain_attention, *wide, regions, heads, mutual),
        4 * torch.finfo(dtype).eps,
    )
    assert out.dtype == grads[0].dtype == dtype


@needs_device
def test_sizes_of_the_published_network_agree():
    from model.attention_triton import window_attention

    windows, tokens, heads, dim = ((1, 1, 1, 1), 384, 1, 16) if INTERPRETED else ((1, 1, 3, 3), 384, 6, 16)
    dtype = torch.float32 if INTERPRETED else torch.bfloat16
    qkv, bias, regions = make_inputs(windows, tokens, heads, dim, dtype, bias=True, regions=True)
    ours = gradients(window_attention, qkv, bias, regions, heads, False)
    plain = gradients(plain_attention, qkv.double(), bias.double(), regions, heads, False)
    assert_agree(ours, plain, 3e-6 if INTERPRETED else 0.03)


@needs_device
def test_self_attention_goes_without_a_bias():
    from model.attention_triton import window_attention

    qkv, _, _ = make_inputs((1, 1, 1, 2), 30, 2, 16, torch.float32, bias=False, regions=False)
    ours = gradients(window_attention, qkv, None, None, 2, False)
    assert_agree(ours, gradients(plain_attention, qkv.double(), None, None, 2, False), 3e-6)


@needs_device
def test_the_sum_over_windows_in_several_chunks_is_repeatable(monkeypatch):
    from model import attention_triton

    monkeypatch.setattr(attention_triton, "BIAS_PROGRAMS", 3)
    qkv, bias, regions = make_inputs((1, 1, 5, 2), 24, 1, 16, torch.float32, bias=True, regions=True)
    first, second = (
        gradients(attention_triton.window_attention, qkv, bias, regions, 1, False) for _ in range(2)
    )
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert_agree(first, gradients(plain_attention, qkv.double(), bias.double(), regions, 1, False), 3e-6)


@needs_device
def test_gradients_come_only_where_they_are_asked_for():
    from model.attention_triton import window_attention

    qkv, bias, _ = make_inputs((1, 1, 1, 1), 8, 1, 16, torch.float32, bias=True, regions=False)
    out = window_attention(qkv.requires_grad_(), bias, None, 1, mutual=False)
    out.sum().backward()
    assert qkv.grad is not None and bias.grad is None
    out = window_attention(qkv.detach(), bias.requires_grad_(), None, 1, mutual=False)
    out.sum().backward()
    assert bias.grad is not None


@needs_device
@pytest.mark.parametrize("mutual", [False, True], ids=["self", "mutual"])
def test_the_operator_keeps_the_rules_of_torch(mutual):
    """Its shapes without data, its schema, and its backward as torch.compile sees them."""
    from model.attention_triton import _attend

    qkv, bias, regions = make_inputs((1, 1, 1, 2), 16, 1, 16, torch.float32, bias=not mutual, regions=True)
    arguments = (qkv.requires_grad_(), bias if bias is None else bias.requires_grad_(), regions, 1, mutual)
    torch.library.opcheck(_attend, arguments)


@needs_device
def test_compiles_without_a_graph_break_and_recomputes_in_a_checkpoint():
    from torch.utils.checkpoint import checkpoint

    from model.attention_triton import window_attention

    qkv, bias, regions = make_inputs((1, 1, 1, 2), 16, 1, 16, torch.float32, bias=True, regions=True)

    def doubled(qkv: Tensor, bias: Tensor, regions: Tensor, heads: int, *, mutual: bool) -> Tensor:
        return window_attention(qkv * 2, bias, regions, heads, mutual=mutual) * 2

    def checkpointed(*args, mutual: bool) -> Tensor:
        return checkpoint(doubled, *args, mutual=mutual, use_reentrant=False)

    expected = gradients(doubled, qkv, bias, regions, 1, False)
    compiled = torch.compile(checkpointed, fullgraph=True, backend="aot_eager")
    for variant in (checkpointed, compiled):
        for value, known in zip(gradients(variant, qkv, bias, regions, 1, False), expected, strict=True):
            torch.testing.assert_close(value, known)


@needs_device
@pytest.mark.parametrize("mutual", [False, True], ids=["self", "mutual"])
def test_counts_two_products_forward_and_five_backward(mutual):
    from torch.utils.flop_counter import FlopCounterMode

    from model.attention_triton import window_attention

    qkv, _, _ = make_inputs((1, 1, 1, 3), 8, 2, 16, torch.float32, bias=False, regions=False)
    product = 2 * 3 * 2 * 16 * (2 * 4 * 4 if mutual else 8 * 8)
    with FlopCounterMode(display=False) as counter:
        out = window_attention(qkv.requires_grad_(), None, None, 2, mutual=mutual)
        assert counter.get_total_flops() == 2 * product
        out.sum().backward()
    assert counter.get_total_flops() == 7 * product


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"qkv": torch.zeros(1, 1, 1, 1, 8, 48, dtype=torch.float64)}, "float64"),
        ({"qkv": torch.zeros(1, 1, 1, 1, 8, 3 * 65)}, "64 channels a head"),
        ({"qkv": torch.zeros(1, 1, 1, 8, 48)}, "is not"),
        ({"qkv": torch.zeros(1, 1, 1, 1, 7, 48), "bias": None, "mutual": True}, "is not"),
        ({"bias": torch.zeros(1, 8, 9)}, "bias"),
        ({"mutual": True}, "bias"),
        ({"regions": torch.zeros(2, 2, 2, 9, dtype=torch.int32)}, "regions"),
    ],
)
def test_refuses_what_the_kernels_cannot_take(change, message):
    from model.attention_triton import window_attention

    arguments = {
        "qkv": torch.zeros(1, 1, 1, 1, 8, 48),
        "bias": torch.zeros(1, 8, 8),
        "regions": None,
        "num_heads": 1,
        "mutual": False,
    }
    with pytest.raises(ValueError, match=message):
        window_attention(**arguments | change)


@pytest.mark.skipif(
    INTERPRETED or torch.cuda.is_available(), reason="the others run here, on CUDA or interpreted"
)
def test_all_of_this_holds_in_the_interpreter(tmp_path):
    if importlib.util.find_spec("triton.runtime.interpreter") is None:
        pytest.skip("this triton has no interpreter")
    ran = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-x",
            "-p",
            "no:cacheprovider",
            f"--basetemp={tmp_path / 'inner'}",
            __file__,
        ],
        cwd=Path(__file__).parents[2],
        env=os.environ | {"TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
