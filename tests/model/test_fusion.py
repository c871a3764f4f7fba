import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model.fusion import RGBOnly, TemporalCrossAttnFuse, resample_to
from model.temporal_attention import Chunking, ChunkShape


def _trained(chunking: Chunking | None = None) -> TemporalCrossAttnFuse:
    torch.manual_seed(0)
    fuse = TemporalCrossAttnFuse(8, 4, 2, chunking or Chunking()).double()
    for parameter in fuse.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return fuse


def test_starts_as_the_rgb_features_bit_for_bit() -> None:
    torch.manual_seed(0)
    fuse = TemporalCrossAttnFuse(8, 4, 2, Chunking())
    rgb = torch.randn(2, 8, 3, 6, 5)
    assert torch.equal(fuse(rgb, torch.randn(2, 4, 3, 6, 5)), rgb)


def test_one_step_makes_the_spikes_count() -> None:
    torch.manual_seed(0)
    fuse = TemporalCrossAttnFuse(8, 4, 2, Chunking())
    rgb, spikes = torch.randn(1, 8, 3, 4, 4), torch.randn(1, 4, 3, 4, 4, requires_grad=True)
    optimizer = torch.optim.SGD(fuse.parameters(), lr=0.1)
    (fuse(rgb, spikes) - torch.randn_like(rgb)).square().mean().backward()
    assert not spikes.grad.any()
    optimizer.step()
    (fuse(rgb, spikes) - rgb).square().mean().backward()
    assert spikes.grad.any()


def test_attends_over_time_at_the_same_pixel() -> None:
    fuse = _trained()
    rgb = torch.randn(1, 8, 3, 4, 5, dtype=torch.float64)
    spikes = torch.randn(1, 4, 3, 4, 5, dtype=torch.float64)
    moved = spikes.clone()
    moved[:, 2, 0, 1, 3] += 1
    changed = (fuse(rgb, moved) - fuse(rgb, spikes)).abs().sum((0, 1)) > 0
    assert changed[:, 1, 3].all()
    assert changed.sum() == 3


@settings(deadline=None, derandomize=True, max_examples=40)
@given(
    shape=st.sampled_from(["square", "wide", "tall"]),
    size=st.integers(1, 6),
    frames=st.integers(1, 64),
    others=st.integers(1, 64),
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    halved=st.booleans(),
)
def test_results_and_gradients_do_not_depend_on_the_chunks(
    shape: ChunkShape, size: int, frames: int, others: int, height: int, width: int, halved: bool
) -> None:
    cut, whole = (
        _trained(chunking) for chunking in (Chunking(mode="fixed", size=size, shape=shape), Chunking())
    )
    rgb = torch.randn(1, 8, frames, height, width, dtype=torch.float64, requires_grad=True)
    small = [-(-side // 2) if halved else side for side in (height, width)]
    spikes = torch.randn(1, 4, others, *small, dtype=torch.float64, requires_grad=True)
    found, wanted = ([fuse(rgb, spikes)] for fuse in (cut, whole))
    weight = torch.randn_like(rgb)
    for fuse, results in ((cut, found), (whole, wanted)):
        results.extend(torch.autograd.grad((results[0] * weight).sum(), (rgb, spikes, *fuse.parameters())))
    # The sums over the pixels of each chunk round otherwise than one sum over all.
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


def test_resamples_spikes_of_another_resolution() -> None:
    x = torch.tensor([0.0, 4.0]).view(1, 1, 1, 1, 2)
    assert resample_to(x, (1, 4)).flatten().tolist() == [0.0, 1.0, 3.0, 4.0]
    fuse = _trained()
    rgb = torch.randn(1, 8, 3, 8, 8, dtype=torch.float64)
    spikes = torch.randn(1, 4, 3, 2, 4, dtype=torch.float64)
    torch.testing.assert_close(fuse(rgb, spikes), fuse(rgb, resample_to(spikes, (8, 8))))


def test_spikes_may_have_fewer_times_than_frames() -> None:
    rgb = torch.randn(1, 8, 4, 3, 3, dtype=torch.float64)
    assert _trained()(rgb, torch.randn(1, 4, 2, 3, 3, dtype=torch.float64)).shape == rgb.shape


def test_without_fusion_rgb_passes_through() -> None:
    rgb = torch.randn(1, 8, 3, 4, 4)
    assert RGBOnly()(rgb, None) is rgb
