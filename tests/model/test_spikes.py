import pytest
import torch

from model.spikes import SpikeEncoder, SpikeEncoder3D, SpikeTemporalSA
from model.temporal_attention import Chunking


def test_encoder_halves_the_resolution_three_times() -> None:
    features = SpikeEncoder3D(5, (4, 6, 8, 8))(torch.randn(2, 5, 3, 24, 16))
    assert [tuple(x.shape) for x in features] == [
        (2, 4, 3, 24, 16),
        (2, 6, 3, 12, 8),
        (2, 8, 3, 6, 4),
        (2, 8, 3, 3, 2),
    ]


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


def test_encoder_attends_on_every_scale() -> None:
    encoder = SpikeEncoder(4, (4, 8, 8, 8), (1, 2, 2), 2, Chunking())
    features = encoder(torch.randn(1, 4, 3, 16, 16))
    assert [x.shape[1] for x in features] == [4, 8, 8, 8]
    sum(x.sum() for x in features).backward()
    assert all(p.grad is not None for p in encoder.parameters())


def test_features_lie_channels_last_in_memory_without_copies_between_the_layers() -> None:
    encoder = SpikeEncoder(4, (4, 8, 8, 8), (1, 2, 2), 2, Chunking())
    for x in encoder(torch.randn(1, 4, 3, 16, 16)):
        assert x.is_contiguous(memory_format=torch.channels_last_3d)


@pytest.mark.parametrize("frames", [1, 2, 7, 64])
def test_takes_any_number_of_frames(frames: int) -> None:
    encoder = SpikeEncoder(4, (4, 4, 4, 4), (1, 2, 2), 2, Chunking(max_batch_tokens=50))
    features = encoder(torch.randn(1, 4, frames, 12, 10))
    assert [tuple(x.shape[2:]) for x in features] == [
        (frames, 12, 10),
        (frames, 6, 5),
        (frames, 3, 3),
        (frames, 2, 2),
    ]
    sum(x.sum() for x in features).backward()
    assert all(p.grad.isfinite().all() for p in encoder.parameters())
