from fractions import Fraction

import pytest

from pipeline.config import build, to_plain
from pipeline.errors import ConfigError
from pipeline.logs.settings import LogClock, TimestampColumns, check_clock

GOOD = {"frame": "image", "start": "t", "duration": "exp", "unit": "us"}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"duration": None}, "declare start and stop"),
        ({"start": None}, "declare start and stop"),
        ({"middle": "m"}, "declare start and stop"),
        ({"stop": "e"}, "leave duration out"),
        ({"stop": "e", "duration": None, "duration_unit": "ms"}, "duration_unit goes with duration"),
        ({"frame": None, "sequence": "s"}, "sequence goes with frame"),
        ({"frame": None, "spike_index": "s"}, "spike_index goes with frame"),
        ({"frame": "t"}, "different names"),
        ({"unit": "min"}, "unit: expected"),
        ({"delimiter": ":"}, "delimiter: expected"),
    ],
)
def test_columns_that_do_not_make_an_exposure_are_refused(changes, words):
    with pytest.raises(ConfigError, match=words):
        build(TimestampColumns, GOOD | changes, "test")


def test_columns_go_there_and_back():
    for changes in ({}, {"start": None, "middle": "t"}, {"stop": "e", "duration": None}, {"frame": None}):
        columns = build(TimestampColumns, GOOD | changes, "test")
        assert build(TimestampColumns, to_plain(columns), "test") == columns


def test_settings_of_a_clock_that_contradict_one_another_are_refused():
    with pytest.raises(ValueError, match=r"clock\.stamp goes with the dialect pairs"):
        check_clock(LogClock(stamp="middle"), "csv", None)
    with pytest.raises(ValueError, match="needs clock"):
        check_clock(LogClock(stamp="middle"), "pairs", None)
    with pytest.raises(ValueError, match="has no clock"):
        check_clock(LogClock(), "indices", Fraction(1000))
    check_clock(LogClock(stamp="end", origin="first_frame"), "pairs", None)
    check_clock(LogClock(origin=5), None, None)
