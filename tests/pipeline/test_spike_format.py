from fractions import Fraction

import pytest

from pipeline.config import build, to_plain
from pipeline.errors import FormatError
from pipeline.spike_format import SpikeFormat


def test_bytes_of_a_frame_are_its_pixels_over_eight():
    assert SpikeFormat(height=360, width=640, rate_hz=1920).frame_bytes == 28800
    assert SpikeFormat(height=250, width=416, rate_hz=1, valid_columns=(0, 400)).frame_bytes == 13000


def test_head_columns_are_not_pixels():
    fmt = SpikeFormat(height=2, width=416, rate_hz=1, valid_columns=(0, 400))
    assert fmt.columns == (0, 400)
    assert fmt.valid_width == 400


def test_refuses_pixels_that_do_not_fill_bytes_unless_frames_are_padded():
    with pytest.raises(FormatError, match="3x3 pixels do not fill whole bytes"):
        SpikeFormat(height=3, width=3, rate_hz=1).frame_bytes  # noqa: B018
    assert SpikeFormat(height=3, width=3, rate_hz=1, padding="frame").frame_bytes == 2


@pytest.mark.parametrize(
    "wrong",
    [
        {"height": 0},
        {"width": 1 << 20},
        {"rate_hz": 0},
        {"rate_hz": 1920.5},
        {"bit_order": "big"},
        {"flip": "horizontal"},
        {"padding": "file"},
        {"axes": "WHT"},
        {"valid_columns": (4, 4)},
        {"valid_columns": (0, 17)},
        {"valid_columns": (-1, 8)},
    ],
)
def test_cannot_exist_in_a_wrong_state(wrong):
    with pytest.raises(ValueError):
        SpikeFormat(**({"height": 2, "width": 16, "rate_hz": 1} | wrong))


def test_goes_through_yaml_values_and_back():
    fmt = SpikeFormat(height=2, width=16, rate_hz=Fraction(100000, 3), flip="none", valid_columns=(0, 8))
    assert build(SpikeFormat, to_plain(fmt), "test") == fmt
