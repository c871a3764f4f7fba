import pytest
import torch
from torch import nn

from model.spikes import SpikeEncoder, SpikeEncoder3D, SpikeTemporalSA
from model.temporal_attention import Chunking, TemporalAttention, in_chunks


def test_encoder_halves_the_resolution_three_times() -> None:
    features = SpikeEncoder3D(5, (4, 6, 8, 8))(torch.randn(2, 5, 3, 24, 16))
    assert [tuple(x.shape) for x in features] == [
        (2, 4, 3, 24, 16),
        (2, 6, 3, 12, 8),
        (2, 8, 3, 6, 4),
        (2, 8, 3, 3, 2),
    ]


def test_temporal_attention_matches_torch() -> None:
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


def test_a_pixel_sees_only_its_own_times() -> None:
    torch.manual_seed(0)
    attend = SpikeTemporalSA(8, 2, Chunking())
    x = torch.randn(1, 8, 4, 5, 6)
    moved = x.clone()
    moved[:, 0, 1, 2, 3] += 1
    changed = (attend(moved) - attend(x)).abs().sum((0, 1)) > 0
    assert changed[:, 2, 3].all()
    assert changed.sum() == 4


@pytest.mark.parametrize("mode", ["adaptive", "fixed"])
@pytest.mark.parametrize("shape", ["square", "wide", "tall"])
@pytest.mark.parametrize("size", [1, 3, 4])
def test_results_do_not_depend_on_the_chunks(mode: str, shape: str, size: int) -> None:
    torch.manual_seed(0)
    chunking = Chunking(mode=mode, shape=shape, size=size, max_batch_tokens=2 * size**2)
    whole = SpikeTemporalSA(8, 2, Chunking()).double()
    cut = SpikeTemporalSA(8, 2, chunking).double()
    cut.load_state_dict(whole.state_dict())
    x = torch.randn(2, 8, 3, 9, 10, dtype=torch.float64, requires_grad=True)
    weight = torch.randn_like(x)
    torch.testing.assert_close(cut(x), whole(x))
    grads = [torch.autograd.grad((attend(x) * weight).sum(), x)[0] for attend in (cut, whole)]
    torch.testing.assert_close(*grads)


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


def test_encoder_attends_on_every_scale() -> None:
    encoder = SpikeEncoder(4, (4, 8, 8, 8), (1, 2, 2), 2, Chunking())
    features = encoder(torch.randn(1, 4, 3, 16, 16))
    assert [x.shape[1] for x in features] == [4, 8, 8, 8]
    sum(x.sum() for x in features).backward()
    assert all(p.grad is not None for p in encoder.parameters())
