import numpy as np
import pytest

from pipeline.errors import FormatError
from pipeline.recognition.array_axes import detect_axes


def spikes(frames: int = 50, height: int = 30, width: int = 44) -> np.ndarray:
    rng = np.random.default_rng(0)
    light = 0.2 + 0.2 * np.sin(np.arange(height)[:, None] / 5) * np.cos(np.arange(width) / 7)
    charge = light * np.arange(frames + 1)[:, None, None] + rng.uniform(0, 1, (height, width))
    return np.diff(np.floor(charge), axis=0).astype(np.uint8)


@pytest.mark.parametrize(("axes", "order"), [("THW", (0, 1, 2)), ("HTW", (1, 0, 2)), ("HWT", (1, 2, 0))])
def test_time_is_where_no_pixel_fires_twice_running(tmp_path, axes, order):
    np.save(tmp_path / "a.npy", spikes().transpose(order))
    found = detect_axes(tmp_path / "a.npy")
    assert (found.axes, found.height, found.width, found.key) == (axes, 30, 44, None)


def test_the_array_that_holds_spikes_is_found_among_others(tmp_path):
    label = np.random.default_rng(0).integers(0, 256, (30, 44, 3)).astype(np.uint8)
    np.savez(tmp_path / "a.npz", spk=spikes().astype(bool), label=label, name=np.array(["x"], object))
    assert (detect_axes(tmp_path / "a.npz").key, detect_axes(tmp_path / "a.npz").axes) == ("spk", "THW")


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"a": np.zeros((4, 5, 6), np.uint8)}, "0 arrays of three axes"),
        ({"a": np.zeros((4, 5, 6), np.float32)}, "0 arrays of three axes"),
        ({"a": np.ones((4, 8), np.uint8)}, "0 arrays of three axes"),
        ({"a": spikes(), "b": spikes()}, "2 arrays of three axes"),
        ({"a": np.random.default_rng(0).integers(0, 2, (30, 30, 30), np.uint8)}, "none of the axes"),
        ({"a": np.ones((9, 9, 9), np.uint8)}, "none of the axes"),
    ],
)
def test_what_does_not_tell_is_refused(tmp_path, arrays, words):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(FormatError, match=words):
        detect_axes(tmp_path / "a.npz")


@pytest.mark.parametrize(
    ("name", "axes", "key", "size"),
    [("spikingsim_real_spike.npz", "HWT", "arr_0", (250, 400)), ("uhsr.npz", "THW", "spk", (250, 250))],
)
def test_recordings_of_real_cameras(shared_data, name, axes, key, size):
    found = detect_axes(shared_data / "real_npz" / name)
    assert (found.axes, found.key, (found.height, found.width)) == (axes, key, size)
