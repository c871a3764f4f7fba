import numpy as np
import pytest

from pipeline.dat import open_spikes, write_dat
from pipeline.recognition.continuity import Break, find_breaks
from pipeline.spike_format import SpikeFormat

FORMAT = SpikeFormat(height=40, width=60, rate_hz=1)


def steady(frames: int = 150, low: float = 0.1, high: float = 0.45, jitter: float = 0.0) -> np.ndarray:
    """Spikes of a ramp of light, in even steps; with `jitter`, of light that trembles."""
    rng = np.random.default_rng(0)
    light = np.linspace(low, high, 2400).reshape(40, 60)
    noise = jitter * rng.standard_normal((frames, 40, 60))
    charge = np.cumsum(np.maximum(light + noise, 0), axis=0) + rng.uniform(0, 1, (40, 60))
    return np.diff(np.floor(charge), axis=0, prepend=0).clip(0, 1).astype(np.uint8)


def breaks_of(tmp_path, spikes: np.ndarray, fmt: SpikeFormat = FORMAT) -> tuple[Break, ...]:
    write_dat(tmp_path / "a.dat", spikes, fmt)
    return find_breaks(open_spikes(tmp_path / "a.dat", fmt))


@pytest.mark.parametrize("jitter", [0.0, 0.05, 0.2])
def test_a_whole_recording_has_no_breaks(tmp_path, jitter):
    assert breaks_of(tmp_path, steady(jitter=jitter)) == ()


@pytest.mark.parametrize("frame", [1, 63, 64, 65, 128, 148])
@pytest.mark.parametrize("jitter", [0.0, 0.05])
def test_a_missing_frame_is_found_where_it_is_missing(tmp_path, frame, jitter):
    found = breaks_of(tmp_path, np.delete(steady(jitter=jitter), frame, axis=0))
    assert found == (Break(frame, False),)
    assert str(found[0]) == f"before spike frame {frame} at least one is missing"


@pytest.mark.parametrize("frame", [0, 63, 64, 148])
def test_a_frame_recorded_twice_is_found(tmp_path, frame):
    spikes = steady(jitter=0.05)
    found = breaks_of(tmp_path, np.insert(spikes, frame, spikes[frame], axis=0))
    assert found == (Break(frame + 1, True),)
    assert "recorded twice" in str(found[0])


def test_several_breaks_are_all_found_in_order(tmp_path):
    spikes = np.delete(steady(), [20, 90], axis=0)
    spikes = np.insert(spikes, 50, spikes[50], axis=0)
    assert breaks_of(tmp_path, spikes) == (Break(20, False), Break(51, True), Break(90, False))


def test_nothing_is_concluded_from_what_shows_nothing(tmp_path):
    rng = np.random.default_rng(0)
    noise = (rng.random((100, 40, 60)) < 0.4).astype(np.uint8)
    assert breaks_of(tmp_path, noise) == ()
    assert breaks_of(tmp_path, np.delete(noise, 50, axis=0)) == ()
    assert breaks_of(tmp_path, np.zeros((100, 40, 60), np.uint8)) == ()
    assert breaks_of(tmp_path, np.ones((100, 40, 60), np.uint8)) == ()
    assert breaks_of(tmp_path, steady(frames=8)) == ()


def test_light_that_changes_is_no_break(tmp_path):
    dim, bright = steady(60, 0.05, 0.2), steady(60, 0.5, 0.95)
    flicker = np.concatenate([dim, bright, dim])
    assert all(not one.is_repeat for one in breaks_of(tmp_path, flicker))
    rate = 0.3 + 0.25 * np.sin(np.arange(200) / 10)
    charge = np.cumsum(rate)[:, None, None] * np.linspace(0.5, 1, 2400).reshape(40, 60)
    phase = np.random.default_rng(0).uniform(0, 1, (40, 60))
    waves = np.diff(np.floor(charge + phase), axis=0, prepend=0).clip(0, 1).astype(np.uint8)
    assert breaks_of(tmp_path, waves) == ()


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("gopro_spike_pair/000226.dat", (360, 640)),
        ("sreds_t301_250x400/203_part1_key_id151.dat", (250, 400)),
        ("sreds_t301_250x400/203_part2_key_id151.dat", (250, 400)),
        ("sreds_t301_250x400/203_part3_key_id151.dat", (250, 400)),
        ("sreds_t41_250x400/000_part1_key_id21.dat", (250, 400)),
    ],
)
def test_recordings_of_others_are_whole_and_a_missing_frame_shows(tmp_path, shared_data, name, size):
    fmt = SpikeFormat(height=size[0], width=size[1], rate_hz=1)
    stream = open_spikes(shared_data / name, fmt)
    assert find_breaks(stream) == ()
    assert breaks_of(tmp_path, np.delete(stream.read(0, len(stream)), 30, axis=0), fmt) == (Break(30, False),)


def test_a_missing_frame_shows_in_a_real_camera_s_recording(tmp_path, shared_data):
    axes = SpikeFormat(height=250, width=400, rate_hz=1, flip="none", axes="HWT")
    stream = open_spikes(shared_data / "real_npz/spikingsim_real_spike.npz", axes)
    assert find_breaks(stream) == ()
    fmt = SpikeFormat(height=250, width=400, rate_hz=1)
    assert breaks_of(tmp_path, np.delete(stream.read(0, 200), 77, axis=0), fmt) == (Break(77, False),)
