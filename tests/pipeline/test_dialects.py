from fractions import Fraction
from pathlib import Path

import pytest

from pipeline.dialects import recognise
from pipeline.errors import AlignmentError
from pipeline.log_rows import RowError

SECONDS = "frame_idx,t0,t1,event_count,seq"
LOG = Path("align.txt")


@pytest.mark.parametrize(
    ("header", "name", "unit_ns"),
    [
        (SECONDS, "seconds", 10**9),
        ("frame,start_ns,stop_ns", "csv", 1),
        ("frame,start_ms,stop_ms,sequence", "csv", 10**6),
    ],
)
def test_the_header_tells_dialect_and_unit(header, name, unit_ns):
    dialect = recognise(LOG, header, None)
    assert (dialect.name, dialect.unit_ns) == (name, unit_ns)
    assert recognise(LOG, header, name) == dialect or name == "csv"


@pytest.mark.parametrize(("text", "ns"), [("0.0000000005", 0), ("0.0000000015", 2), ("0.00000000051", 1)])
def test_what_is_finer_than_a_nanosecond_is_rounded_to_even(text, ns):
    row = recognise(LOG, "frame,start_s,stop_s", None).parse(f"a,{text},7", 2)
    assert (row.exposure.start, row.exposure.stop) == (ns, 7 * 10**9)
    assert row.resolution == Fraction(10**9, 10 ** (len(text) - 2))


def test_a_bad_row_tells_its_frame_only_when_all_its_fields_are_there():
    dialect = recognise(LOG, SECONDS, None)
    assert dialect.bad_row("07,0,0,0,train\\a", 5, RowError("why")).frame == "7"
    assert dialect.bad_row("07,0,0,0,train\\a", 5, RowError("why")).sequence == "train/a"
    assert dialect.bad_row("07,0,0", 5, RowError("why")).frame is None


def test_mixed_units_are_no_dialect():
    with pytest.raises(AlignmentError, match="the unit may also be ns, ms or s"):
        recognise(LOG, "frame,start_us,stop_ms", None)
