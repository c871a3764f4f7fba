"""Which instants can be pictured, and that the pictures show the light there."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.dat import pack_rows
from pipeline.errors import UsageError
from pipeline.images import read_rgb
from pipeline.previews.playback import Playback, draw_animation, draw_strip, spread, usual_white
from pipeline.previews.preview import to_grey8
from pipeline.previews.spike_source import OpenedSpikes
from pipeline.simulation.camera import SpikeCamera

LIGHT = np.tile(np.linspace(0.1, 0.9, 24), (16, 1))
SPIKES = SpikeCamera(threshold=2.0).expose([LIGHT] * 100, np.random.default_rng(0))


def source(spikes: np.ndarray = SPIKES, **known) -> OpenedSpikes:
    return OpenedSpikes(
        name="made", shape=spikes.shape, how="", read=lambda a, b: pack_rows(spikes[a:b]), **known
    )


def test_tfp_has_whole_windows_only():
    playback = Playback(source=source(), half_window=10)
    assert playback.moments() == range(10, 90)
    assert playback.moments(0, 30) == range(10, 30)
    assert playback.moments(40, 100) == range(40, 90)
    picture = playback.picture(10)
    assert (
        np.allclose(picture.light, 2 * SPIKES[0:21].mean(axis=0)) and picture.label == "frame 10, tfp of 21"
    )


def test_tfp_of_a_frame_near_an_end_takes_what_there_is_and_says_so():
    playback = Playback(source=source(), half_window=10)
    picture = playback.picture(97)
    assert (
        np.allclose(picture.light, 2 * SPIKES[87:100].mean(axis=0)) and picture.label == "frame 97, tfp of 13"
    )
    short = Playback(source=source(SPIKES[:15]), half_window=10)
    assert short.moments() == range(7, 8) and short.picture(7).label == "frame 7, tfp of 15"


def test_tfi_pictures_any_frame_and_counts_its_bounds():
    playback = Playback(source=source(), method="tfi")
    assert playback.moments() == range(100) and playback.moments(5, 7) == range(5, 7)
    assert playback.picture(50).num_bounds == 0
    last = playback.picture(99)
    assert last.num_bounds == LIGHT.size and last.label == "frame 99, tfi"


def test_a_mean_is_that_of_an_exposure_where_there_are_any():
    exposures = np.array([[0, 20], [30, 41], [50, 90]])
    playback = Playback(source=source(exposures=exposures), method="mean", threshold=3.0)
    assert playback.moments() == range(3) and playback.moments(25, 60) == range(1, 2)
    picture = playback.picture(1)
    assert (
        np.allclose(picture.light, 3 * SPIKES[30:41].mean(axis=0))
        and picture.label == "frames 30 to 40, mean"
    )


def test_a_mean_is_that_of_windows_where_there_are_none():
    assert Playback(source=source(), method="mean").picture(0).label == "frames 0 to 99, mean"
    playback = Playback(source=source(), method="mean", window=30)
    assert playback.moments() == range(3)
    assert np.allclose(playback.picture(2).light, 2 * SPIKES[60:90].mean(axis=0))


def test_labels_tell_the_time_where_the_rate_is_known():
    playback = Playback(source=source(rate_hz=Fraction(1920)), method="tfi")
    assert playback.picture(40).label == "frame 40, 21.09 ms, tfi"  # 40.5 / 1.92


@pytest.mark.parametrize("method", ["tfp", "tfi", "mean"])
def test_all_methods_find_the_light(method):
    playback = Playback(source=source(), method=method)
    (moment,) = spread(playback.moments(), 1)
    error = playback.picture(moment).light - LIGHT
    assert np.abs(error).mean() < (0.02 if method == "mean" else 0.06)


@pytest.mark.parametrize(
    ("method", "span"), [("tfp", (50, 50)), ("tfi", (90, 101)), ("tfp", (0, 5)), ("mean", (1, 100))]
)
def test_refuses_spans_with_nothing_in_them(method, span):
    with pytest.raises(UsageError, match="made"):
        Playback(source=source(), method=method).moments(*span)


def test_refuses_frames_and_windows_that_there_are_not():
    with pytest.raises(UsageError, match="no frame 100"):
        Playback(source=source()).picture(100)
    with pytest.raises(UsageError, match="no whole window"):
        Playback(source=source(), method="mean", window=101).moments()


def test_pictures_are_spread_evenly():
    assert spread(range(10, 70), 6) == [15, 25, 35, 45, 55, 65]
    assert spread(range(4), 6) == [0, 1, 2, 3]


def test_one_moment_is_drawn_as_bare_pixels(tmp_path: Path):
    playback = Playback(source=source())
    assert draw_strip(tmp_path / "a.png", playback, [40]) == 0
    picture = read_rgb(tmp_path / "a.png")
    assert np.array_equal(picture[0], to_grey8(playback.picture(40).light, white=1.0))
    assert np.abs(picture[0] / 255 - LIGHT).max() < 2 / 33 + 1 / 255


def test_several_are_drawn_side_by_side_and_large_enough_for_labels(tmp_path: Path):
    playback = Playback(source=source())
    draw_strip(tmp_path / "a.png", playback, [20, 40, 60, 80])
    picture = read_rgb(tmp_path / "a.png")
    zoom = 11  # 24 columns to at least 256
    assert picture.shape == (3, 2 * (16 * zoom + 28) + 8, 3 * (24 * zoom + 8) + 8)
    first = to_grey8(playback.picture(20).light, white=1.0)
    assert np.array_equal(picture[0, 28 : 28 + 16 * zoom : zoom, 8 : 8 + 24 * zoom : zoom], first)
    with pytest.raises(UsageError, match="49 pictures are too many"):
        draw_strip(tmp_path / "b.png", playback, range(20, 69))


def test_an_animation_shows_every_moment(tmp_path: Path):
    playback, seen = Playback(source=source(), method="tfi"), []
    bounds = draw_animation(
        tmp_path / "a.gif", playback, [50, 60, 99], fps=10, progress=lambda *now: seen.append(now[:2])
    )
    assert bounds == LIGHT.size and seen == [(1, 3), (2, 3), (3, 3)]
    with Image.open(tmp_path / "a.gif") as image:
        assert (image.n_frames, image.size) == (3, (24 * 11, 16 * 11 + 20))
        for number, moment in enumerate((50, 60, 99)):
            image.seek(number)
            pixels = np.asarray(image.convert("L"))[20::11, ::11]
            assert np.array_equal(pixels, to_grey8(playback.picture(moment).light, white=1.0))


def test_contrast_is_one_for_all_pictures():
    dim = SpikeCamera(threshold=2.0).expose([LIGHT / 4] * 100, np.random.default_rng(0))
    playback = Playback(source=source(dim))
    white = usual_white(playback, playback.moments())
    assert 0.15 < white < 0.35
    dark = Playback(source=source(0 * SPIKES))
    assert usual_white(dark, dark.moments()) == 1.0
