import math

import pytest
import torch
from torch import Tensor

import model.window_attention as module
from model.window_attention import window_attention

HEADS = 2


def plain(qkv: Tensor, bias: Tensor | None, regions: Tensor | None, *, mutual: bool) -> Tensor:
    """Window by window and head by head, with the whole mask."""
    out = qkv.new_zeros(*qkv.shape[:-1], qkv.shape[-1] // 3)
    half = qkv.shape[-2] // 2
    for at in torch.cartesian_prod(*(torch.arange(size) for size in qkv.shape[:4])).tolist():
        last = tuple(int(i == size - 1) for i, size in zip(at[1:], qkv.shape[1:4], strict=True))
        q, k, v = qkv[tuple(at)].unflatten(-1, (3, HEADS, -1)).unbind(1)  # (N, heads, d)
        mask = qkv.new_zeros(len(q), len(q))
        if regions is not None:
            apart = regions[last][:, None] != regions[last]
            mask = apart.to(qkv.dtype) * -100

        def attend(q: Tensor, k: Tensor, v: Tensor, added: Tensor) -> Tensor:
            logits = torch.einsum("nhd,mhd->hnm", q, k) / math.sqrt(q.shape[-1]) + added
            return torch.einsum("hnm,mhd->nhd", logits.softmax(-1), v).flatten(1)

        if mutual:
            corner = mask[:half, :half]
            parts = [
                attend(q[half:], k[:half], v[:half], corner),
                attend(q[:half], k[half:], v[half:], corner),
            ]
            out[tuple(at)] = torch.cat(parts)
        else:
            out[tuple(at)] = attend(q, k, v, mask if bias is None else bias + mask)
    return out


def inputs(
    dtype: torch.dtype, *, mutual: bool, masked: bool = True, tokens: int = 6
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    torch.manual_seed(1)
    qkv = torch.randn(2, 2, 3, 2, tokens, 3 * HEADS * 5, dtype=dtype, requires_grad=True)
    bias = None if mutual else torch.randn(HEADS, tokens, tokens, dtype=dtype, requires_grad=True)
    regions = None
    if masked:
        regions = torch.randint(0, 2, (2, 2, 2, tokens), dtype=torch.int32)
        regions[0, 0, 0] = 0
    return qkv, bias, regions


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("mutual", [False, True])
@pytest.mark.parametrize("scores", [1, 150, 10**6])
def test_is_the_plain_formula_whatever_the_chunks(
    mutual: bool, masked: bool, scores: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_CPU_SCORES", scores)
    qkv, bias, regions = inputs(torch.float64, mutual=mutual, masked=masked)
    out = window_attention(qkv, bias, regions, HEADS, mutual=mutual)
    want = plain(qkv, bias, regions, mutual=mutual)
    torch.testing.assert_close(out, want, atol=1e-12, rtol=0)
    leaves = [qkv] if bias is None else [qkv, bias]
    grad = torch.randn_like(out)
    for got, wanted in zip(
        torch.autograd.grad(out, leaves, grad), torch.autograd.grad(want, leaves, grad), strict=True
    ):
        torch.testing.assert_close(got, wanted, atol=1e-12, rtol=0)


@pytest.mark.parametrize("mutual", [False, True])
def test_float32_shares_that_are_left_out_do_not_show(mutual: bool) -> None:
    qkv, bias, regions = inputs(torch.float32, mutual=mutual)
    out = window_attention(qkv, bias, regions, HEADS, mutual=mutual)
    want = plain(qkv.double(), None if bias is None else bias.double(), regions, mutual=mutual)
    torch.testing.assert_close(out.double(), want, atol=1e-6, rtol=1e-6)


def test_a_masked_token_that_all_others_dwarf_is_still_seen() -> None:
    # Its logit is 100 lower for the mask, and 120 higher by itself: published weights may rely on it.
    qkv = torch.zeros(1, 1, 1, 1, 2, 3)
    qkv[..., 1, 2] = 1.0
    bias = torch.tensor([[[0.0, 120.0], [0.0, 0.0]]])
    regions = torch.tensor([0, 1], dtype=torch.int32).expand(2, 2, 2, 2)
    out = window_attention(qkv, bias, regions, 1, mutual=False)
    assert out[0, 0, 0, 0, 0].item() == pytest.approx(1 / (1 + math.exp(-20)))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_goes_through_float32(dtype: torch.dtype) -> None:
    qkv, bias, regions = inputs(torch.float32, mutual=False)
    half = qkv.detach().to(dtype).requires_grad_()
    out = window_attention(half, bias, regions, HEADS, mutual=False)
    want = window_attention(half.detach().float(), bias, regions, HEADS, mutual=False)
    assert out.dtype == dtype
    torch.testing.assert_close(out, want.to(dtype), rtol=0, atol=0)
    grads = torch.autograd.grad(out.float().square().sum(), (half, bias))
    assert [grad.dtype for grad in grads] == [dtype, torch.float32]
    assert window_attention(half, bias.detach().to(dtype), regions, HEADS, mutual=False).dtype == dtype


def test_scores_are_neither_kept_nor_made_at_once() -> None:
    qkv, bias, regions = inputs(torch.float32, mutual=False, tokens=40)
    sizes = []

    def keep(saved: Tensor) -> Tensor:
        sizes.append(saved.numel())
        return saved

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda saved: saved):
        window_attention(qkv, bias, regions, HEADS, mutual=False)
    assert max(sizes) == qkv.numel() and sum(sizes) <= qkv.numel() + bias.numel() + regions.numel()


def test_traces_without_a_break() -> None:
    qkv, bias, regions = inputs(torch.float32, mutual=False)
    compiled = torch.compile(window_attention, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(
        compiled(qkv, bias, regions, HEADS, mutual=False),
        window_attention(qkv, bias, regions, HEADS, mutual=False),
    )
    torch.library.opcheck(torch.ops.spk.window_attention, (qkv, bias, regions, HEADS, False))


def test_mutual_attention_takes_no_bias() -> None:
    qkv, bias, regions = inputs(torch.float32, mutual=False)
    with pytest.raises(ValueError, match="bias"):
        window_attention(qkv, bias, regions, HEADS, mutual=True)
