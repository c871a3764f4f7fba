from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from pipeline.dat import write_array, write_dat
from pipeline.errors import FormatError
from pipeline.recognition.detection import detect_format
from pipeline.spike_format import AutoFormat, SpikeFormat

AUTO = AutoFormat(geometry="auto", rate_hz=Fraction(20000))


def spikes(height: int, width: int, frames: int = 40) -> np.ndarray:
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:height, :width]
    light = 0.25 + 0.1 * np.sin(y / 17) * np.cos(x / 23) + 0.1 * np.sin((x + 2 * y) / 41)
    charge = light * np.arange(frames + 1)[:, None, None] + rng.uniform(0, 1, (height, width))
    return np.diff(np.floor(charge), axis=0).astype(np.uint8)


@pytest.mark.parametrize("order", ["lsb", "msb"])
def test_a_dat_is_found_from_its_bits_and_upside_down_as_usual(tmp_path, order):
    fmt = SpikeFormat(height=136, width=200, rate_hz=20000, bit_order=order)
    write_dat(tmp_path / "a.dat", spikes(136, 200), fmt)
    assert detect_format(tmp_path / "a.dat", AUTO) == fmt
    assert detect_format(tmp_path / "a.dat", replace(AUTO, flip="none")) == replace(fmt, flip="none")


def test_an_array_is_found_from_its_axes_and_upright_as_usual(tmp_path):
    fmt = SpikeFormat(height=36, width=50, rate_hz=20000, axes="HWT", flip="none")
    write_array(tmp_path / "a.npy", spikes(36, 50), fmt)
    assert detect_format(tmp_path / "a.npy", AUTO) == fmt


def test_noise_is_no_recording(tmp_path):
    (tmp_path / "a.dat").write_bytes(np.random.default_rng(0).bytes(500_000))
    with pytest.raises(FormatError, match="makes a picture"):
        detect_format(tmp_path / "a.dat", AUTO)
