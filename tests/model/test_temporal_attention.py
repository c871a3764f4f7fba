"""Attention over time at each pixel: against a plain loop, by hand, and in any chunks."""

import math
from collections.abc import Callable
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from model.temporal_attention import (
    Chunking,
    FeedForward,
    TemporalAttention,
    attend_by_kernel,
    attend_by_products,
    in_chunks,
)


def attention(channels: int = 8, context_channels: int = 6, num_heads: int = 2) -> TemporalAttention:
    torch.manual_seed(0)
    attend = TemporalAttention(channels, context_channels, num_heads).double()
    for parameter in attend.parameters():
        nn.init.normal_(parameter, std=0.5)
    return attend.requires_grad_(False)


def only_the_bias(*slopes: float) -> TemporalAttention:
    """Heads of one channel that look alike at all times but for the distance, and hand on what they see."""
    attend = TemporalAttention(len(slopes), len(slopes), len(slopes)).double().requires_grad_(False)
    for layer in (attend.query, attend.key_value, attend.proj):
        layer.weight.zero_()
        layer.bias.zero_()
    eye = torch.eye(len(slopes), dtype=torch.float64)
    attend.key_value.weight[len(slopes) :] = eye
    attend.proj.weight.copy_(eye)
    attend.slope.copy_(torch.tensor(slopes))
    return attend


def plain_attention(attend: TemporalAttention, query: Tensor, context: Tensor) -> Tensor:
    """One pixel, one head, one frame at a time."""
    batch, frames, height, width, channels = query.shape
    size, others = channels // attend.num_heads, context.shape[1]
    result = torch.zeros_like(query)
    for b in range(batch):
        for y in range(height):
            for x in range(width):
                q = query[b, :, y, x] @ attend.query.weight.T + attend.query.bias
                kv = context[b, :, y, x] @ attend.key_value.weight.T + attend.key_value.bias
                k, v = kv[:, :channels], kv[:, channels:]
                seen = torch.zeros(frames, channels, dtype=query.dtype)
                for head in range(attend.num_heads):
                    part = slice(head * size, (head + 1) * size)
                    for t in range(frames):
                        logits = [
                            float(q[t, part] @ k[s, part]) / math.sqrt(size)
                            - float(attend.slope[head]) * abs(t - s * frames / others)
                            for s in range(others)
                        ]
                        weights = [math.exp(logit) for logit in logits]
                        for s in range(others):
                            seen[t, part] += weights[s] / sum(weights) * v[s, part]
                result[b, :, y, x] = seen @ attend.proj.weight.T + attend.proj.bias
    return result


@pytest.mark.parametrize("num_heads", [1, 2, 4])
@pytest.mark.parametrize(("frames", "others"), [(3, 3), (4, 2), (2, 5), (1, 3), (3, 1)])
def test_is_what_a_plain_loop_gives(num_heads: int, frames: int, others: int) -> None:
    attend = attention(num_heads=num_heads)
    query = torch.randn(2, frames, 2, 3, 8, dtype=torch.float64)
    context = torch.randn(2, others, 2, 3, 6, dtype=torch.float64)
    torch.testing.assert_close(attend(query, context), plain_attention(attend, query, context))


def test_matches_the_attention_of_torch_with_the_distances_as_its_mask() -> None:
    torch.manual_seed(0)
    ours = TemporalAttention(8, 8, 2).double()
    theirs = nn.MultiheadAttention(8, 2, batch_first=True, dtype=torch.float64)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([ours.query.weight, ours.key_value.weight]))
        theirs.in_proj_bias.copy_(torch.cat([ours.query.bias, ours.key_value.bias]))
        theirs.out_proj.weight.copy_(ours.proj.weight)
        theirs.out_proj.bias.copy_(ours.proj.bias)
    query = torch.randn(2, 3, 2, 4, 8, dtype=torch.float64)
    context = torch.randn(2, 5, 2, 4, 8, dtype=torch.float64)
    q, c = (x.permute(0, 2, 3, 1, 4).flatten(0, 2) for x in (query, context))
    # Five context frames over the time of three: they lie at 0, 0.6, 1.2, 1.8, 2.4.
    distance = (torch.arange(3.0)[:, None] - torch.arange(5.0) * 0.6).abs().double()
    mask = -ours.slope.detach()[:, None, None] * distance
    want = theirs(q, c, c, attn_mask=mask.repeat(16, 1, 1))[0].unflatten(0, (2, 2, 4)).permute(0, 3, 1, 2, 4)
    torch.testing.assert_close(ours(query, context), want)


def test_a_steep_head_sees_its_own_frame_and_a_flat_one_all_frames() -> None:
    torch.manual_seed(0)
    attend = TemporalAttention(4, 4, 1)
    query, context = torch.randn(1, 3, 1, 1, 4), torch.randn(1, 3, 1, 1, 4)
    moved = context.clone()
    moved[:, 2] += 1
    for slope, seen in ((1000.0, [False, False, True]), (0.0, [True, True, True])):
        attend.slope.data.fill_(slope)
        changed = (attend(query, moved) - attend(query, context)).abs().sum((0, 2, 3, 4)) > 0
        assert changed.tolist() == seen


def test_slopes_start_from_8_and_end_at_an_eighth() -> None:
    assert TemporalAttention(7, 7, 7).slope.tolist() == [8, 4, 2, 1, 0.5, 0.25, 0.125]
    assert TemporalAttention(4, 4, 1).slope.tolist() == [8]


def test_the_head_of_slope_8_sees_its_own_frame_and_the_one_of_an_eighth_all() -> None:
    attend = only_the_bias(8.0, 0.125)
    context = torch.zeros(1, 3, 1, 1, 2, dtype=torch.float64)
    context[0, :, 0, 0] = torch.tensor([[100.0], [10.0], [1.0]])
    steep, flat = attend(torch.zeros_like(context), context)[0, :, 0, 0].T
    # A neighbour weighs exp(-8) = 0.00034 of the frame itself, two frames on exp(-16).
    one, two = math.exp(-8), math.exp(-16)
    wanted = [(100 + 10 * one + two) / (1 + one + two), (10 + 101 * one) / (1 + 2 * one)]
    assert steep[:2].tolist() == pytest.approx(wanted) and abs(steep[0] - 100) < 0.04
    # Here a neighbour weighs exp(-1 / 8) = 0.88: all three frames count, the own one most.
    one, two = math.exp(-1 / 8), math.exp(-2 / 8)
    assert flat[0] == pytest.approx((100 + 10 * one + two) / (1 + one + two)) and flat[0] < 50


def test_fewer_frames_of_context_are_spread_over_the_same_time() -> None:
    attend = only_the_bias(1.0)
    context = torch.tensor([1.0, 0.0], dtype=torch.float64).view(1, 2, 1, 1, 1)
    found = attend(torch.zeros(1, 4, 1, 1, 1, dtype=torch.float64), context).flatten().tolist()
    # Two frames over the time of four lie at 0 and 2: from 0, 1, 2, 3 they are 0, 1, 2, 3 and 2, 1, 0, 1 away.
    wanted = [math.exp(-a) / (math.exp(-a) + math.exp(-b)) for a, b in ((0, 2), (1, 1), (2, 0), (3, 1))]
    assert found == pytest.approx(wanted)
    assert found[1] == 0.5


def test_a_context_of_one_frame_is_seen_by_all() -> None:
    context = torch.tensor([7.0], dtype=torch.float64).view(1, 1, 1, 1, 1)
    assert only_the_bias(8.0)(torch.zeros(1, 5, 1, 1, 1, dtype=torch.float64), context).unique().tolist() == [
        7
    ]


def all_gradients(function: Callable[..., Tensor], attend: nn.Module, *videos: Tensor) -> list[Tensor]:
    """The result, then the gradients of the videos and of the parameters."""
    out = function(*videos)
    weight = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out)
    return [out, *torch.autograd.grad((out * weight).sum(), (*videos, *attend.parameters()))]


@settings(deadline=None, derandomize=True, max_examples=60)
@given(
    chunking=st.builds(
        Chunking,
        mode=st.sampled_from(["adaptive", "fixed"]),
        shape=st.sampled_from(["square", "wide", "tall"]),
        size=st.integers(1, 8),
        max_batch_tokens=st.integers(1, 150),
    ),
    batch=st.integers(1, 3),
    frames=st.integers(1, 64),
    others=st.integers(1, 64),
    height=st.integers(1, 9),
    width=st.integers(1, 9),
)
def test_results_and_gradients_do_not_depend_on_the_chunks(
    chunking: Chunking, batch: int, frames: int, others: int, height: int, width: int
) -> None:
    attend = attention(channels=4, context_channels=3).requires_grad_()
    query = torch.randn(batch, frames, height, width, 4, dtype=torch.float64, requires_grad=True)
    context = torch.randn(batch, others, height, width, 3, dtype=torch.float64, requires_grad=True)
    whole = all_gradients(attend, attend, query, context)
    cut = all_gradients(partial(in_chunks, attend, chunking), attend, query, context)
    # Not bit for bit: matrix products of other sizes, and sums over the pixels of each chunk, round otherwise.
    for found, wanted in zip(cut, whole, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("size", [1, 3, 64])
def test_chunks_of_what_no_pixel_shares_give_the_same_bits(size: int) -> None:
    video = torch.randn(2, 3, 7, 5, 4, requires_grad=True)

    def sine(x: Tensor) -> Tensor:
        return x.sin()

    cut = in_chunks(sine, Chunking(mode="fixed", size=size, shape="wide"), video)
    assert torch.equal(cut, video.sin())
    (gradient,) = torch.autograd.grad(cut.sum(), video)
    assert torch.equal(gradient, video.cos())


def test_training_keeps_the_inputs_of_chunks_and_nothing_that_is_made_of_them() -> None:
    attend = attention(channels=8, context_channels=8).requires_grad_()
    video = torch.randn(1, 4, 16, 16, 8, dtype=torch.float64, requires_grad=True)

    def kept_bytes(chunking: Chunking) -> int:
        storages: dict[int, int] = {}

        def keep(x: Tensor) -> Tensor:
            storages[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
            return x

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
            out = in_chunks(attend, chunking, video, video)
        out.sum().backward()
        return sum(storages.values())

    assert kept_bytes(Chunking()) > 4 * video.nbytes
    assert kept_bytes(Chunking(mode="fixed", size=4)) <= video.nbytes


def test_no_layer_sees_more_than_a_chunk_in_forward_or_backward() -> None:
    attend = attention().requires_grad_()
    sizes: list[int] = []

    def note(module: nn.Module, arguments: object, out: Tensor) -> None:
        sizes.append(out[..., 0].numel())

    attend.query.register_forward_hook(note)
    query = torch.randn(2, 3, 9, 8, 8, dtype=torch.float64, requires_grad=True)
    context = torch.randn(2, 2, 9, 8, 6, dtype=torch.float64)
    in_chunks(attend, Chunking(max_batch_tokens=32), query, context).sum().backward()
    forward, backward = sizes[:6], sizes[6:]
    assert sum(forward) == sum(backward) == 2 * 3 * 9 * 8
    assert max(sizes) == 3 * 32


@pytest.mark.parametrize(("frames", "others"), [(1, 1), (5, 5), (3, 7), (64, 2)])
def test_sums_of_products_are_what_the_kernel_gives(frames: int, others: int) -> None:
    torch.manual_seed(0)
    q = torch.randn(2, frames, 3, 2, 4, 6, dtype=torch.float64, requires_grad=True)
    k, v = (torch.randn(2, others, 3, 2, 4, 6, dtype=torch.float64, requires_grad=True) for _ in range(2))
    bias = torch.randn(1, 4, frames, others, dtype=torch.float64, requires_grad=True)
    outs = [attend(q, k, v, bias) for attend in (attend_by_products, attend_by_kernel)]
    torch.testing.assert_close(*outs)
    weight = torch.randn_like(outs[0])
    torch.testing.assert_close(*(torch.autograd.grad((out * weight).sum(), (q, k, v, bias)) for out in outs))


def test_sums_of_products_are_nearly_as_good_in_half_precision() -> None:
    torch.manual_seed(0)
    q, k, v = (torch.randn(1, 5, 8, 8, 4, 24, dtype=torch.float64) for _ in range(3))
    bias = torch.randn(1, 4, 5, 5, dtype=torch.float64)
    exact = attend_by_kernel(q, k, v, bias)
    halves = [x.bfloat16() for x in (q, k, v)]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        by_products, by_kernel = (
            (attend(*halves, bias.float()) - exact).std() for attend in (attend_by_products, attend_by_kernel)
        )
    assert by_products < 1.5 * by_kernel  # products are rounded one by one, a kernel sums exact ones


@pytest.mark.parametrize("size", [3, 64])
def test_chunks_compile_into_one_graph(size: int) -> None:
    attend = attention().requires_grad_()
    chunked = partial(in_chunks, attend, Chunking(mode="fixed", size=size))
    videos = [torch.randn(1, 3, 5, 6, c, dtype=torch.float64, requires_grad=True) for c in (8, 6)]
    compiled = torch.compile(chunked, backend="aot_eager", fullgraph=True)
    for found, wanted in zip(*(all_gradients(f, attend, *videos) for f in (compiled, chunked)), strict=True):
        torch.testing.assert_close(found, wanted)


def test_chunks_of_several_videos_are_of_the_same_pixels() -> None:
    rows, columns = torch.meshgrid(torch.arange(7), torch.arange(9), indexing="ij")
    one = torch.stack([rows, columns], dim=-1).view(1, 1, 7, 9, 2)
    sizes = []

    def same(a: Tensor, b: Tensor) -> Tensor:
        sizes.append(tuple(a.shape[2:4]))
        assert torch.equal(a.expand_as(b), b)
        return a

    chunking = Chunking(mode="fixed", size=4, shape="wide")
    assert torch.equal(in_chunks(same, chunking, one, one.expand(1, 3, 7, 9, 2)), one)
    assert sizes == [(2, 8), (2, 1)] * 3 + [(1, 8), (1, 1)]


@pytest.mark.parametrize("shape", ["square", "wide", "tall"])
@pytest.mark.parametrize("batch", [1, 3, 64, 100])
def test_adaptive_chunks_stay_below_the_limit(shape: str, batch: int) -> None:
    limit = 64
    chunking = Chunking(shape=shape, max_batch_tokens=limit)
    sizes = []

    def note(x: torch.Tensor) -> torch.Tensor:
        sizes.append(x.shape[0] * x.shape[2] * x.shape[3])
        return x

    x = torch.randn(batch, 2, 17, 13, 1)
    assert torch.equal(in_chunks(note, chunking, x), x)
    assert max(sizes) <= max(limit, batch)  # a single pixel is the smallest chunk


def test_fixed_chunks_have_their_shape() -> None:
    assert Chunking(mode="fixed").tile(1, 500, 500) == (64, 64)
    assert Chunking(mode="fixed", shape="wide").tile(1, 500, 500) == (32, 128)
    assert Chunking(mode="fixed", shape="tall").tile(1, 500, 500) == (128, 32)
    assert Chunking(mode="fixed").tile(1, 20, 500) == (20, 64)
    assert Chunking().tile(4, 96, 96) == (96, 96)


@pytest.mark.parametrize(
    ("field", "value"), [("mode", "auto"), ("shape", "round"), ("size", 0), ("max_batch_tokens", 0)]
)
def test_refuses_impossible_chunks(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=field):
        Chunking(**{field: value})


@pytest.mark.parametrize(
    ("shape", "limit", "tile"),
    [
        ("square", 100, (5, 5)),
        ("wide", 100, (2, 10)),
        ("tall", 100, (10, 2)),
        ("wide", 7, (1, 1)),
        ("tall", 3, (1, 1)),
    ],
)
def test_adaptive_chunks_are_as_large_as_the_limit_allows(
    shape: str, limit: int, tile: tuple[int, int]
) -> None:
    # Four videos share the limit: 25 pixels each, 5 x 5, or half as high and twice as wide; then one pixel.
    assert Chunking(shape=shape, max_batch_tokens=limit).tile(4, 50, 60) == tile


def test_the_feed_forward_layer_is_as_wide_as_it_is_told() -> None:
    layer = FeedForward(6, ratio=1.5)
    assert [tuple(p.shape) for p in layer.parameters()] == [(9, 6), (9,), (6, 9), (6,)]
    x = torch.randn(2, 3, 6)
    wanted = layer[2](torch.nn.functional.gelu(layer[0](x)))
    torch.testing.assert_close(layer(x), wanted)
