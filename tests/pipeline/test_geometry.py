from pathlib import Path

import numpy as np
import pytest

from pipeline.dat import open_spikes, write_dat
from pipeline.errors import FormatError
from pipeline.geometry import check_geometry, rank_geometries, smoothness
from pipeline.spike_format import SpikeFormat

SHARED = Path(__file__).parents[2].parent / "shared" / "data"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="no shared data beside this checkout")


def scene(frames: int, height: int, width: int, seed: int = 0) -> np.ndarray:
    """Spikes of a smooth static scene, threshold 2."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    light = np.full((height, width), 0.5)
    for _ in range(8):
        fy, fx, phase = *rng.uniform(-0.15, 0.15, 2), rng.uniform(0, 6)
        light += 0.06 * np.sin(fy * y + fx * x + phase)
    charge = light[None] * np.arange(frames + 1)[:, None, None] + rng.uniform(0, 2, (height, width))
    return np.diff(np.floor(charge / 2), axis=0).astype(np.uint8)


def test_smoothness_is_the_correlation_of_neighbours():
    image = np.array([[0.0, 1.0, 2.0], [3.0, 5.0, 4.0]])
    rows, columns = smoothness(image)
    assert rows == pytest.approx(np.corrcoef([0, 1, 2], [3, 5, 4])[0, 1])
    assert columns == pytest.approx(np.corrcoef([0, 1, 3, 5], [1, 2, 5, 4])[0, 1])


def test_a_flat_image_is_undecided():
    assert smoothness(np.ones((4, 5))) == (0.0, 0.0)
    assert smoothness(np.ones((1, 1))) == (0.0, 0.0)


@pytest.mark.parametrize("order", ["lsb", "msb"])
@pytest.mark.parametrize("size", [(250, 400), (180, 320)])
def test_the_true_geometry_and_bit_order_rank_first(tmp_path, size, order):
    fmt = SpikeFormat(height=size[0], width=size[1], rate_hz=1, bit_order=order)
    write_dat(tmp_path / "a.dat", scene(72, *size), fmt)
    best, second = rank_geometries(tmp_path / "a.dat", [(125, 800), (90, 640)])[:2]
    assert (best.height, best.width, best.bit_order, best.padding, best.frames) == (*size, order, "none", 72)
    assert best.score > second.score
    assert best.score == min(best.score_rows, best.score_columns)


def test_ranks_a_size_of_ones_own(tmp_path):
    fmt = SpikeFormat(height=50, width=90, rate_hz=1, padding="frame")
    write_dat(tmp_path / "a.dat", scene(40, 50, 90), fmt)
    best = rank_geometries(tmp_path / "a.dat", [(50, 90), (90, 50)])[0]
    assert (best.height, best.width, best.padding) == (50, 90, "frame")


def test_no_geometry_divides_an_odd_size(tmp_path):
    (tmp_path / "a.dat").write_bytes(b"\x01" * 1009)
    assert rank_geometries(tmp_path / "a.dat") == []


@pytest.mark.parametrize(
    "wrong", [{"height": 320, "width": 180}, {"bit_order": "msb"}, {"height": 144, "width": 400}]
)
def test_refuses_a_declared_geometry_that_is_clearly_beaten(tmp_path, wrong):
    right = {"height": 180, "width": 320, "rate_hz": 1}
    write_dat(tmp_path / "a.dat", scene(64, 180, 320), SpikeFormat(**right))
    with pytest.raises(FormatError, match="64 frames of 180x320 lsb") as caught:
        check_geometry(tmp_path / "a.dat", SpikeFormat(**(right | wrong)))
    assert "spk inspect" in caught.value.fix
    assert check_geometry(tmp_path / "a.dat", SpikeFormat(**right)).score > 0.95


@pytest.mark.parametrize("kind", ["dark", "full", "noise", "single"])
def test_does_not_refuse_what_it_cannot_decide(tmp_path, kind):
    spikes = {
        "dark": np.zeros((20, 250, 400), np.uint8),
        "full": np.ones((20, 250, 400), np.uint8),
        "noise": np.random.default_rng(0).integers(0, 2, (20, 250, 400), dtype=np.uint8),
        "single": scene(1, 250, 400),
    }[kind]
    fmt = SpikeFormat(height=250, width=400, rate_hz=1)
    write_dat(tmp_path / "a.dat", spikes, fmt)
    assert abs(check_geometry(tmp_path / "a.dat", fmt).score) < 0.9


def test_head_columns_do_not_count(tmp_path):
    fmt = SpikeFormat(height=100, width=112, rate_hz=1, valid_columns=(0, 96))
    frames = np.random.default_rng(0).integers(0, 2, (64, 100, 112), dtype=np.uint8)
    frames[:, :, :96] = scene(64, 100, 96)
    write_dat(tmp_path / "a.dat", frames, SpikeFormat(height=100, width=112, rate_hz=1))
    assert check_geometry(tmp_path / "a.dat", fmt).score > 0.95


def test_arrays_know_their_axes_and_are_only_scored(tmp_path):
    spikes = scene(48, 60, 80)
    np.save(tmp_path / "a.npy", spikes)
    score = check_geometry(tmp_path / "a.npy", SpikeFormat(height=60, width=80, rate_hz=1, flip="none"))
    assert score.score > 0.9


@needs_shared
@pytest.mark.parametrize(
    ("path", "size"),
    [
        ("gopro_spike_pair/000226.dat", (360, 640)),
        ("sreds_t301_250x400/203_part1_key_id151.dat", (250, 400)),
        ("sreds_t301_250x400/203_part2_key_id151.dat", (250, 400)),
        ("sreds_t301_250x400/203_part3_key_id151.dat", (250, 400)),
        ("sreds_t41_250x400/000_part1_key_id21.dat", (250, 400)),
    ],
)
def test_real_files_are_told_apart_from_every_other_reading(path, size):
    others = [(396, 640), (360, 448), (252, 640), (125, 800), (720, 320), (100, 1000)]
    best, second = rank_geometries(SHARED / path, others)[:2]
    assert (best.height, best.width, best.bit_order) == (*size, "lsb")
    assert best.score > 0.98
    assert second.score < best.score - 0.005


@needs_shared
def test_the_reading_that_fits_the_gopro_file_by_accident_is_refused():
    path = SHARED / "gopro_spike_pair/000226.dat"
    for wrong in ({"height": 396, "width": 640}, {"height": 360, "width": 640, "bit_order": "msb"}):
        with pytest.raises(FormatError, match="88 frames of 360x640 lsb"):
            check_geometry(path, SpikeFormat(**wrong, rate_hz=1920))


@needs_shared
def test_a_real_camera_is_recognised_after_20_frames(tmp_path):
    axes = SpikeFormat(height=250, width=400, rate_hz=20000, flip="none", axes="HWT")
    fmt = SpikeFormat(height=250, width=400, rate_hz=20000)
    write_dat(
        tmp_path / "a.dat", open_spikes(SHARED / "real_npz/spikingsim_real_spike.npz", axes).read(0, 20), fmt
    )
    assert check_geometry(tmp_path / "a.dat", fmt).score > 0.8
    with pytest.raises(FormatError, match="20 frames of 250x400 lsb"):
        check_geometry(tmp_path / "a.dat", SpikeFormat(height=500, width=800, rate_hz=20000))
