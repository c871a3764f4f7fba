from pathlib import Path

import numpy as np
import pytest

from pipeline.dat import open_spikes, write_dat
from pipeline.errors import FormatError
from pipeline.recognition.geometry import check_geometry, detect_geometry, explain_size, rank_geometries
from pipeline.spike_format import SpikeFormat

SHARED = Path(__file__).parents[3].parent / "shared" / "data"
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


@pytest.mark.parametrize("order", ["lsb", "msb"])
@pytest.mark.parametrize("size", [(250, 400), (180, 320)])
def test_the_true_geometry_and_bit_order_rank_first(tmp_path, size, order):
    fmt = SpikeFormat(height=size[0], width=size[1], rate_hz=1, bit_order=order)
    write_dat(tmp_path / "a.dat", scene(72, *size), fmt)
    best, second = rank_geometries(tmp_path / "a.dat", [(125, 800), (90, 640)])[:2]
    reading = best.reading
    assert (reading.height, reading.width, reading.bit_order, reading.padding) == (*size, order, "none")
    assert best.frames == 72 and best.in_period
    assert best.score > second.score
    assert best.score == min(best.score_rows, best.score_columns)


def test_ranks_a_size_of_ones_own(tmp_path):
    fmt = SpikeFormat(height=50, width=90, rate_hz=1, padding="frame")
    write_dat(tmp_path / "a.dat", scene(40, 50, 90), fmt)
    best = rank_geometries(tmp_path / "a.dat", [(50, 90), (90, 50)])[0]
    assert (best.reading.height, best.reading.width, best.reading.padding) == (50, 90, "frame")


@pytest.mark.parametrize(
    "words",
    [
        {"height": 144, "width": 232},
        {"height": 200, "width": 328, "bit_order": "msb"},
        {"height": 128, "width": 96},
        {"height": 250, "width": 250, "padding": "frame"},
        {"height": 250, "width": 250, "padding": "end"},
        {"height": 250, "width": 250, "padding": "end", "bit_order": "msb"},
        {"height": 250, "width": 416, "valid_columns": (0, 400)},
        {"height": 1000, "width": 1024, "valid_columns": ((0, 500), (512, 1012))},
    ],
    ids=str,
)
def test_detects_what_nobody_declared(tmp_path, words):
    fmt = SpikeFormat(rate_hz=1, **words)
    frames = 24 if fmt.height == 1000 else 65
    write_dat(tmp_path / "a.dat", scene(frames, fmt.height, fmt.valid_width), fmt)
    found = detect_geometry(tmp_path / "a.dat")
    reading = found.reading
    assert (reading.height, reading.width, reading.columns) == (fmt.height, fmt.width, fmt.columns)
    assert (reading.bit_order, reading.padding, found.frames) == (fmt.bit_order, fmt.padding, frames)
    assert f"spikes.height={fmt.height}" in found.settings()


def test_does_not_detect_what_makes_no_picture_or_two(tmp_path):
    noise = np.random.default_rng(0).integers(0, 2, (40, 250, 400), dtype=np.uint8)
    fmt = SpikeFormat(height=250, width=400, rate_hz=1)
    write_dat(tmp_path / "noise.dat", noise, fmt)
    with pytest.raises(FormatError, match="no way to read it makes a picture"):
        detect_geometry(tmp_path / "noise.dat")
    grain = 0.5 + 0.3 * np.random.default_rng(1).standard_normal((250, 400))
    light = np.clip(0.4 * scene(64, 250, 400).mean(axis=0) + 0.1 * grain, 0, 1)
    dim = (np.random.default_rng(2).random((12, 250, 400)) < light).astype(np.uint8)
    write_dat(tmp_path / "dim.dat", dim, fmt)
    with pytest.raises(FormatError, match=r"no way to read it|too close to tell"):
        detect_geometry(tmp_path / "dim.dat")


@pytest.mark.parametrize("size", [(500, 400), (125, 400), (1000, 400), (250, 200), (250, 800), (125, 800)])
def test_frames_taken_apart_or_put_together_are_refused_though_they_look_smooth(tmp_path, size):
    right = {"height": 250, "width": 400, "rate_hz": 1}
    write_dat(tmp_path / "a.dat", scene(64, 250, 400), SpikeFormat(**right))
    with pytest.raises(FormatError, match="64 frames of 250x400 lsb"):
        check_geometry(tmp_path / "a.dat", SpikeFormat(height=size[0], width=size[1], rate_hz=1))


@pytest.mark.parametrize("period", [2, 7, 8, 20, 50, 64, 100, 200])
@pytest.mark.parametrize("axis", ["columns", "rows", "both"])
def test_a_test_chart_is_not_mistaken_for_other_frames(tmp_path, period, axis):
    y, x = np.mgrid[:250, :400]
    on = [(at // max(period // 2, 1)) % 2 == 0 for at in (x, y)]
    chart = {"columns": on[0], "rows": on[1], "both": on[0] ^ on[1]}[axis]
    light = np.where(chart, 0.9, 0.0)
    phase = np.random.default_rng(0).uniform(0, 2, chart.shape)
    charge = light[None] * np.arange(41)[:, None, None] + phase
    fmt = SpikeFormat(height=250, width=400, rate_hz=1)
    write_dat(tmp_path / "a.dat", np.diff(np.floor(charge / 2), axis=0).astype(np.uint8), fmt)
    assert check_geometry(tmp_path / "a.dat", fmt).in_period is not False


def test_says_of_a_file_cut_short_what_it_was(tmp_path):
    write_dat(tmp_path / "a.dat", scene(20, 250, 400), SpikeFormat(height=250, width=400, rate_hz=1))
    with (tmp_path / "a.dat").open("r+b") as file:
        file.truncate(10 * 12500 + 123)
    assert "as large as 250x400, and holds 10 of them and 123 bytes" in explain_size(tmp_path / "a.dat")
    (tmp_path / "b.dat").write_bytes(bytes(12_499))
    assert explain_size(tmp_path / "b.dat") == ""


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
    assert "spikes.height=180 spikes.width=320 spikes.bit_order=lsb" in caught.value.fix
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
    found = detect_geometry(SHARED / path)
    assert found == best
    assert (best.reading.height, best.reading.width, best.reading.bit_order) == (*size, "lsb")
    assert best.score > 0.98
    assert second.score < best.score - 0.05


@needs_shared
def test_the_reading_that_fits_the_gopro_file_by_accident_is_refused():
    path = SHARED / "gopro_spike_pair/000226.dat"
    with pytest.raises(
        FormatError, match=r"whole ones have a smoothness of -?0\.[01].*88 frames of 360x640 lsb"
    ):
        check_geometry(path, SpikeFormat(height=250, width=400, rate_hz=1920))
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
