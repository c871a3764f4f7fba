from fractions import Fraction

import pytest

from pipeline.config import build, to_plain
from pipeline.errors import FormatError
from pipeline.spike_format import SpikeFormat


def test_bytes_of_a_frame_are_its_pixels_over_eight():
    assert SpikeFormat(height=360, width=640, rate_hz=1920).frame_bits == 8 * 28800
    assert SpikeFormat(height=250, width=416, rate_hz=1, valid_columns=(0, 400)).frame_bits == 8 * 13000


def test_head_columns_are_not_pixels():
    fmt = SpikeFormat(height=2, width=416, rate_hz=1, valid_columns=(0, 400))
    assert fmt.columns == ((0, 400),)
    assert fmt.valid_width == 400


def test_valid_columns_may_be_several_spans():
    fmt = SpikeFormat(height=2, width=1024, rate_hz=1, valid_columns=((0, 500), (512, 1012)))
    assert fmt.columns == ((0, 500), (512, 1012))
    assert fmt.valid_width == 1000
    assert build(SpikeFormat, to_plain(fmt), "test") == fmt


def test_refuses_pixels_that_do_not_fill_bytes_unless_frames_are_padded():
    with pytest.raises(FormatError, match="3x3 pixels do not fill whole bytes"):
        SpikeFormat(height=3, width=3, rate_hz=1).frame_bits  # noqa: B018
    assert SpikeFormat(height=3, width=3, rate_hz=1, padding="frame").frame_bits == 16
    assert SpikeFormat(height=3, width=3, rate_hz=1, padding="end").frame_bits == 9


def test_fewer_pixels_than_a_byte_cannot_be_counted_to_the_end_of_a_file():
    with pytest.raises(FormatError, match="does not tell how many frames"):
        SpikeFormat(height=1, width=7, rate_hz=1, padding="end").frame_bits  # noqa: B018


@pytest.mark.parametrize(
    "wrong",
    [
        {"height": 0},
        {"width": 1 << 20},
        {"height": 1 << 13, "width": 1 << 13},
        {"rate_hz": 0},
        {"rate_hz": 1920.5},
        {"bit_order": "big"},
        {"flip": "horizontal"},
        {"padding": "file"},
        {"axes": "WHC"},
        {"num_frames": 0},
        {"valid_columns": (4, 4)},
        {"valid_columns": (0, 17)},
        {"valid_columns": (-1, 8)},
        {"valid_columns": ()},
        {"valid_columns": ((0, 8), (4, 12))},
        {"valid_columns": ((8, 16), (0, 8))},
    ],
)
def test_cannot_exist_in_a_wrong_state(wrong):
    with pytest.raises(ValueError):
        SpikeFormat(**({"height": 2, "width": 16, "rate_hz": 1} | wrong))


def test_goes_through_yaml_values_and_back():
    fmt = SpikeFormat(height=2, width=16, rate_hz=Fraction(100000, 3), flip="none", valid_columns=(0, 8))
    assert build(SpikeFormat, to_plain(fmt), "test") == fmt
