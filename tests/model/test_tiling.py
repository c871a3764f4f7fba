"""Tiled and streamed restoration equals restoration of the whole, and fits the memory there is."""

import itertools
import math
import threading

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from model.network import NetworkConfig, SpikeVRT, build_network
from model.tiling import Tiling, cut, fades, restore_tiled


def pixelwise(blurry: Tensor, voxels: Tensor | None) -> Tensor:
    """A network that looks at single pixels only."""
    return torch.sin(blurry * 3.3) if voxels is None else blurry * 0.7 + voxels.sum(dim=2, keepdim=True)


class SmallConv(nn.Module):
    """Two 3 x 3 x 3 convolutions with zero padding: two pixels and two frames to every side."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(
            nn.Conv3d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv3d(4, 3, 3, padding=1)
        ).double()

    def forward(self, blurry: Tensor, voxels: Tensor | None) -> Tensor:
        return self.layers(blurry.transpose(1, 2)).transpose(1, 2)


def frames(n: int = 7, height: int = 72, width: int = 56) -> Tensor:
    return torch.rand(n, 3, height, width, generator=torch.Generator().manual_seed(1))


def stacked(*arguments, **keywords) -> Tensor:
    with torch.inference_mode():
        return torch.stack(list(restore_tiled(*arguments, **keywords)))


@pytest.mark.parametrize(
    ("length", "piece", "overlap", "unit"),
    [
        (72, 32, 8, 8),
        (100, 32, 16, 8),
        (97, 40, 8, 8),
        (7, 5, 2, 1),
        (1111, 5, 2, 1),
        (720, 264, 32, 24),
        (33, 32, 0, 8),
    ],
)
def test_pieces_cover_everything_in_order_and_overlap_enough(length, piece, overlap, unit):
    spans = cut(length, piece, overlap, unit)
    assert spans[0][0] == 0 and spans[-1][1] == length
    assert all(start % unit == 0 and stop - start <= piece for start, stop in spans)
    assert all(a[1] - b[0] >= overlap and a[0] < b[0] for a, b in itertools.pairwise(spans))
    total = torch.zeros(length)
    for (start, stop), fade in zip(spans, fades(spans, overlap), strict=True):
        assert ((fade >= 0) & (fade <= 1)).all()
        total[start:stop].lerp_(torch.ones(stop - start), fade)
    assert (total == 1).all()


def test_one_piece_when_it_all_fits():
    assert cut(5, 5, 2) == [(0, 5)]
    assert cut(3, 5, 2) == [(0, 3)]


def test_known_cut():
    # Two tiles of 32 in 50 pixels: the second starts at the first multiple of 8 from which it reaches the end.
    assert cut(50, 32, 8, 8) == [(0, 32), (24, 50)]


def test_outer_quarters_of_an_overlap_have_no_weight_and_the_fade_is_smooth():
    first, second = fades([(0, 32), (16, 48)], overlap=16)
    assert (first == 1).all() and (second[12:] == 1).all() and (second[:4] == 0).all()
    assert 0 < second[:16].diff().max() < 0.25
    # What the second takes from one side of the middle it leaves to the other.
    torch.testing.assert_close(second[:16] + second[:16].flip(0), torch.ones(16))


def test_an_overlap_larger_than_asked_for_keeps_the_fade_in_its_middle():
    _, second = fades([(0, 32), (8, 40)], overlap=8)
    assert (second[:10] == 0).all() and (second[14:] == 1).all() and (second[10:14] > 0).all()


@pytest.mark.parametrize(
    ("tile", "overlap", "scale", "unit"),
    [
        (None, 32, 1, 64),
        (256, 64, 1, 64),
        (256, 32, 3, 192),
        (128, 64, 1, 64),
        (128, 64, 3, 48),
        (64, 32, 2, 32),
        (24, 8, 1, 16),
        (16, 8, 1, 8),
    ],
)
def test_tiles_start_where_attention_windows_do_if_their_overlap_allows_it(tile, overlap, scale, unit):
    assert Tiling(tile=tile, overlap=overlap).unit(scale) == unit
    assert Tiling(tile=tile, overlap=overlap, grid=8).unit(scale) == math.lcm(8, scale)
    for length in (100, 720, 1283):
        spans = cut(length, tile or length, overlap, unit)
        assert all(start % unit == 0 for start, _ in spans)


@pytest.mark.parametrize(
    "tiling", [Tiling(tile=32, overlap=8), Tiling(tile=24, overlap=12, num_frames=4, overlap_frames=1)]
)
def test_a_pixelwise_network_gives_exactly_the_same_bits(tiling):
    blurry = frames()
    expected = pixelwise(blurry[None], None)[0]
    assert torch.equal(stacked(pixelwise, blurry, None, tiling), expected)


def test_each_tile_gets_the_spikes_beneath_it():
    blurry = frames(n=4, height=96, width=72)
    counts = torch.randint(0, 9, (4, 2, 32, 24), dtype=torch.uint8)

    def network(part: Tensor, voxels: Tensor | None) -> Tensor:
        up = voxels.repeat_interleave(3, dim=3).repeat_interleave(3, dim=4)
        return pixelwise(part, up)

    restored = stacked(
        network, blurry, counts.numpy(), Tiling(tile=48, overlap=16, num_frames=3, overlap_frames=1), scale=3
    )
    assert torch.equal(restored, network(blurry[None], counts[None])[0])


def test_a_small_network_does_not_notice_the_cuts():
    network, blurry = SmallConv(), frames().double()
    with torch.inference_mode():
        whole = network(blurry[None], None)[0]
    tiled = stacked(network, blurry, None, Tiling(tile=32, overlap=8, num_frames=7, overlap_frames=0))
    assert (tiled - whole).abs().max() < 1e-12
    # In time the two convolutions reach two frames: a quarter of an overlap of eight.
    long = frames(n=24, height=16, width=16).double()
    with torch.inference_mode():
        whole = network(long[None], None)[0]
    clipped = stacked(network, long, None, Tiling(num_frames=16, overlap_frames=8))
    assert (clipped - whole).abs().max() < 1e-12


@pytest.mark.parametrize("span", [(0, 5), (3, 9), (8, 9), (4, 4)])
def test_a_span_is_restored_as_if_there_were_no_other_frames(span):
    network, blurry = SmallConv(), frames(n=9, height=24, width=16).double()
    counts = torch.randint(0, 9, (9, 2, 24, 16), dtype=torch.uint8)
    tiling = Tiling(tile=16, overlap=8, num_frames=3, overlap_frames=1)
    with torch.inference_mode():
        found = list(restore_tiled(network, blurry, counts, tiling, span=span))
        wanted = list(restore_tiled(network, blurry[slice(*span)], counts[slice(*span)], tiling))
    assert len(found) == span[1] - span[0]
    assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))


def test_too_small_an_overlap_shows():
    network, blurry = SmallConv(), frames(height=64, width=64).double()
    with torch.inference_mode():
        whole = network(blurry[None], None)[0]
    tiled = stacked(network, blurry, None, Tiling(tile=32, overlap=0, num_frames=7, overlap_frames=0))
    assert (tiled - whole).abs().max() > 1e-3


def test_memory_and_reads_are_bounded_by_one_clip():
    """Frames come out before later ones are read, and never is more than a clip asked for."""
    reads: list[tuple[int, int]] = []

    class Watched:
        shape = (40, 3, 16, 16)

        def __getitem__(self, selection):
            clip, _, rows, columns = selection
            reads.append((clip.start, clip.stop))
            return np.zeros(
                (clip.stop - clip.start, 3, rows.stop - rows.start, columns.stop - columns.start),
                np.uint8,
            )

    stream = restore_tiled(pixelwise, Watched(), None, Tiling(num_frames=5, overlap_frames=2))
    next(stream)
    assert reads == [(0, 5)]
    assert len(list(stream)) == 39
    assert max(stop - start for start, stop in reads) == 5


def test_out_of_memory_halves_the_tiles_and_keeps_them_small(caplog):
    sizes: list[int] = []

    def hungry(blurry: Tensor, voxels: Tensor | None) -> Tensor:
        sizes.append(blurry.shape[-1])
        if blurry.shape[-1] > 70:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return pixelwise(blurry, voxels)

    blurry = frames(n=8, height=160, width=256)
    tiling = Tiling(overlap=16, num_frames=4, overlap_frames=0)
    assert torch.equal(stacked(hungry, blurry, None, tiling), pixelwise(blurry[None], None)[0])
    assert sizes[:2] == [256, 128]
    assert set(sizes[2:]) <= {64}
    assert "going on with 64" in caplog.text


def test_tiles_are_halved_as_well_when_the_machine_runs_out_of_memory(caplog):
    def hungry(blurry: Tensor, voxels: Tensor | None) -> Tensor:
        if blurry.shape[-1] > 70:
            torch.empty(1 << 50, dtype=torch.uint8)
        return pixelwise(blurry, voxels)

    blurry = frames(n=3, height=64, width=128)
    assert torch.equal(stacked(hungry, blurry, None, Tiling()), pixelwise(blurry[None], None)[0])
    assert "going on with 64" in caplog.text


def test_other_errors_are_no_lack_of_memory():
    def broken(blurry: Tensor, voxels: Tensor | None) -> Tensor:
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes do not match"):
        stacked(broken, frames(), None, Tiling())


@pytest.mark.parametrize(("num_frames", "overlap_frames"), [(4, 1), (5, 2), (6, 3), (2, 0), (20, 4)])
def test_going_on_in_the_middle_gives_the_same_frames(num_frames, overlap_frames):
    tiling = Tiling(num_frames=num_frames, overlap_frames=overlap_frames)
    blurry, network, restored = frames(n=13, height=16, width=16).double(), SmallConv(), []

    def counting(blurry: Tensor, voxels: Tensor | None) -> Tensor:
        restored.append(len(blurry[0]))
        return network(blurry, voxels)

    whole = stacked(counting, blurry, None, tiling, span=(1, 12))
    all_clips = len(restored)
    for since in range(1, 12):
        restored.clear()
        rest = stacked(counting, blurry, None, tiling, span=(1, 12), since=since)
        assert torch.equal(rest, whole[since - 1 :])
        assert len(restored) <= all_clips
    assert num_frames != 4 or len(restored) == 2 < all_clips
    assert not list(restore_tiled(counting, blurry, None, tiling, span=(1, 12), since=12))


def test_out_of_memory_at_the_smallest_tile_is_an_error():
    def starving(blurry: Tensor, voxels: Tensor | None) -> Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(torch.OutOfMemoryError):
        stacked(starving, frames(), None, Tiling())


@pytest.mark.parametrize(
    "settings",
    [
        {"tile": 30},
        {"tile": 0},
        {"tile": 32, "overlap": 17},
        {"overlap": -1},
        {"num_frames": 0},
        {"num_frames": 3, "overlap_frames": 2},
        {"grid": 4},
        {"grid": 48},
    ],
)
def test_refuses_tilings_that_cannot_work(settings):
    with pytest.raises(ValueError, match=next(reversed(settings))):
        Tiling(**settings)


def test_refuses_spikes_of_another_size_and_tiles_off_the_scale():
    with pytest.raises(ValueError, match="do not fit"):
        stacked(pixelwise, frames(), torch.zeros(7, 2, 35, 28), Tiling(), scale=2)
    with pytest.raises(ValueError, match="tile 32 is not a multiple of scale 3"):
        stacked(pixelwise, frames(width=57), torch.zeros(7, 2, 24, 19), Tiling(tile=32, overlap=8), scale=3)


def test_an_empty_sequence_restores_to_nothing():
    assert list(restore_tiled(pixelwise, frames(n=0), None, Tiling())) == []


def smooth(channels: int, num_frames: int, height: int, width: int) -> Tensor:
    """(T, C, H, W) waves about as long as two windows of the network, moving by a pixel a frame."""
    time, y, x = torch.meshgrid(*(torch.arange(float(n)) for n in (num_frames, height, width)), indexing="ij")
    waves = [((x - time) / (20 + 3 * c)).sin() * ((y + time) / (17 + 2 * c)).cos() for c in range(channels)]
    return 0.5 + 0.3 * torch.stack(waves, dim=1)


def random_network(channels: int, depth: int, gain: float) -> SpikeVRT:
    """With the windows and scales of the reference model, and a flow of about half a pixel.

    Neighbours are sampled at whole pixels: near an integer the least change of a flow would move a sample by one.
    """
    torch.manual_seed(0)
    config = NetworkConfig(
        embed_dims=(channels,) * 8,
        depths=(depth,) * 8,
        num_heads=(2,) * 8,
        indep_reconsts=(),
        deformable_groups=2,
        spike_channels=(8,) * 4,
    )
    network = build_network(config, num_bins=2).eval()
    for module in network.modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=gain * module.in_features**-0.5)
        if hasattr(module, "conv_offset"):
            nn.init.normal_(module.conv_offset[-1].weight, std=0.02)
    for level in network.spynet.basic_module:
        nn.init.zeros_(level.basic_module[-1].bias)
        level.basic_module[-1].weight.data.mul_(0.05)
    nn.init.constant_(network.spynet.basic_module[2].basic_module[-1].bias, 0.06)
    nn.init.normal_(network.conv_last.weight, std=0.02)
    return network


def test_seams_of_the_real_network_are_below_half_a_grey_level_on_a_smooth_scene():
    """With the default overlap, where the network changes the frames by more than ten grey levels.

    Tiles that start off the grid of its windows, which then hold other pixels, do show.
    """
    network = random_network(channels=16, depth=2, gain=0.75)
    blurry, voxels = smooth(3, 2, 64, 400), smooth(2, 2, 64, 400)
    whole = stacked(network, blurry, voxels, Tiling(num_frames=2, overlap_frames=0))
    scale = 0.05 / (whole - blurry).std()
    assert 255 * scale * (whole - blurry).abs().max() > 10

    def difference(**settings: int) -> float:
        tiling = Tiling(tile=256, num_frames=2, overlap_frames=0, **settings)
        tiled = stacked(network, blurry, voxels, tiling)
        return (255 * scale * (tiled - whole)).abs().max().item()

    assert difference() < 0.5
    assert difference(grid=8) > 0.5


@pytest.mark.parametrize(
    ("num_frames", "height", "width"), [(1, 9, 7), (2, 65, 33), (5, 30, 64), (6, 17, 101), (8, 48, 40)]
)
def test_takes_any_number_of_frames_of_any_size(tiny, num_frames, height, width):
    torch.manual_seed(0)
    network = build_network(tiny(), num_bins=2).eval()
    nn.init.normal_(network.conv_last.weight, std=0.02)
    blurry = frames(num_frames, height, width)
    voxels = torch.rand(num_frames, 2, height, width)
    restored = stacked(network, blurry, voxels, Tiling(tile=32, overlap=16))
    assert restored.shape == blurry.shape
    assert restored.isfinite().all() and not torch.equal(restored, blurry)
    if num_frames <= 5 and max(height, width) <= 32:
        with torch.inference_mode():
            assert torch.equal(restored, network(blurry[None], voxels[None])[0])


def test_the_next_tile_is_read_while_one_is_restored():
    """The network waits until the next read has begun, which would be for ever if nothing read ahead."""
    reads, begun = [], threading.Condition()

    class Watched:
        shape = (1, 3, 32, 128)

        def __getitem__(self, selection):
            with begun:
                reads.append(selection[3].start)
                begun.notify_all()
            return np.zeros((1, 3, 32, selection[3].stop - selection[3].start), np.float32)

    restored = 0

    def network(blurry: Tensor, voxels: Tensor | None) -> Tensor:
        nonlocal restored
        restored += 1
        with begun:
            assert begun.wait_for(lambda: len(reads) > restored or len(reads) == 4, timeout=10)
            assert len(reads) <= restored + 1
        return blurry

    assert len(list(restore_tiled(network, Watched(), None, Tiling(tile=32, overlap=0, grid=32)))) == 1
    assert reads == [0, 32, 64, 96]


def test_a_reader_that_fails_stops_the_restoration():
    class Broken:
        shape = (3, 3, 64, 64)

        def __getitem__(self, selection):
            raise OSError("unreadable")

    with pytest.raises(OSError, match="unreadable"):
        stacked(pixelwise, Broken(), None, Tiling(tile=32, overlap=0))


def test_every_clip_is_told_the_instants_of_its_own_frames() -> None:
    def told(blurry: Tensor, voxels: Tensor | None, *, instants: Tensor) -> Tensor:
        assert instants.shape == blurry.shape[:2]
        return instants[..., None, None, None].expand(blurry.shape)

    instants = torch.linspace(0, 1, 9)
    tiling = Tiling(tile=8, overlap=0, num_frames=3, overlap_frames=1)
    frames = restore_tiled(told, torch.zeros(9, 3, 16, 8), None, tiling, instants=instants, span=(1, 8))
    assert [frame.unique().item() for frame in frames] == instants[1:8].tolist()
