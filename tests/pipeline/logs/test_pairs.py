import pytest

from pipeline.logs.dialects import PAIRS_FIRST_LINE
from pipeline.logs.pairs import read_pairs
from pipeline.logs.rows import BadRow

STAMP, LENGTH = f"{PAIRS_FIRST_LINE}1763626982s,598990us", "Exp Time:13265 us,Gain:1"


def pairs(*lines, stamp="start"):
    return list(read_pairs(enumerate(lines, start=1), stamp))


@pytest.mark.parametrize(
    ("stamp", "start"),
    [
        ("start", 1763626982_598_990_000),
        ("middle", 1763626982_592_357_500),
        ("end", 1763626982_585_725_000),
    ],
)
def test_a_pair_is_an_exposure_by_what_its_stamp_means(stamp, start):
    (row,) = pairs(STAMP, LENGTH, stamp=stamp)
    assert (row.exposure.frame, row.exposure.line) == ("0", 1)
    assert (row.exposure.start, row.exposure.stop) == (start, start + 13_265_000)


def test_microseconds_are_not_padded():
    (row,) = pairs(f"{PAIRS_FIRST_LINE}983s,27382us", "Exp Time:1.5 ms,Gain:2.0")
    assert (row.exposure.start, row.exposure.stop) == (983_027_382_000, 983_028_882_000)
    assert row.resolution == 101_000  # a microsecond of the stamp, a tenth of a millisecond of the length


@pytest.mark.parametrize(
    ("lines", "words", "line"),
    [
        ((STAMP, STAMP, LENGTH), "no line with an exposure time", 1),
        ((LENGTH, STAMP, LENGTH), "no time stamp", 1),
        ((STAMP, "Exp Time:132"), "no exposure time", 1),
        ((STAMP, "Exp Time:0 us,Gain:1"), "an exposure time of 0", 1),
        ((f"{PAIRS_FIRST_LINE}983s,1000000us", LENGTH), "no time stamp", 1),
        ((STAMP, LENGTH, "nonsense"), "no time stamp", 3),
        ((STAMP, LENGTH, STAMP), "no line with an exposure time", 3),
    ],
)
def test_a_broken_pair_keeps_its_place(lines, words, line):
    rows = pairs(*lines)
    (bad,) = [row for row in rows if isinstance(row, BadRow)]
    assert words in bad.reason and bad.line == line
    assert bad.frame == str(rows.index(bad))
    assert len(rows) == 2 or len(lines) == 2
