from fractions import Fraction
from pathlib import Path

import pytest

from pipeline.errors import AlignmentError
from pipeline.logs.dialects import described, recognise
from pipeline.logs.rows import RowError
from pipeline.logs.settings import TimestampColumns

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


def test_a_column_tells_the_instants_of_the_sharp_frames():
    for names, values in (
        ("", ""),
        (",sequence", ",a"),
        (",spike_index", ","),
        (",sequence,spike_index", ",a,"),
    ):
        table = recognise(LOG, f"frame,start_us,stop_us,sharp_us{names}", None)
        assert table.parse(f"0,20,60,31.5{values}", 2).exposure.sharp == 31_500
    assert recognise(LOG, "frame,start_us,stop_us", None).parse("0,20,60", 2).exposure.sharp is None
    sync = recognise(LOG, "frame,start_us,stop_us,sharp_us,spike_index", None).parse(",20,,,7", 2)
    assert sync.exposure is None and sync.sync.spike_index == 7


@pytest.mark.parametrize(
    ("sharp", "words"),
    [("19", "not within"), ("60", "not within"), ("x", "not a decimal number"), ("", "an empty value")],
)
def test_a_sharp_instant_must_be_within_its_exposure(sharp, words):
    table = recognise(LOG, "frame,start_us,stop_us,sharp_us", None)
    with pytest.raises(RowError, match=words):
        table.parse(f"0,20,60,{sharp}", 2)


def test_mixed_units_are_no_dialect():
    with pytest.raises(AlignmentError):
        recognise(LOG, "frame,start_us,stop_us,sharp_ns", None)
    with pytest.raises(AlignmentError, match="the unit may also be ns, ms or s"):
        recognise(LOG, "frame,start_us,stop_ms", None)


INDICES = "split,scene,sub,frame,t0_idx,t1_idx,events"


def test_indices_are_spike_frames_of_a_sequence_by_its_parts():
    table = recognise(LOG, INDICES, None)
    row = table.parse("train,002,occ008.320_f2881,000007,88,176,4", 2).exposure
    assert (row.frame, row.sequence, row.start, row.stop) == ("7", "train/002/occ008.320_f2881", 88, 176)
    assert table.parse("test,GOPR0384_11_00,,7,88,176,4", 2).exposure.sequence == "test/GOPR0384_11_00"
    assert table.in_frames


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("train,a,b,7,88.0,176,4", "t0_idx|start '88.0'"),
        ("train,a,b,7,176,88,4", "reversed"),
        ("train,a,b,7,0,0,4", "placeholder"),
        ("train,a,b,7,88,176,many", "events 'many'"),
        ("train,,b,7,88,176,4", "an empty value"),
        ("train,a,b,7,88,176", "6 values, expected 7"),
    ],
)
def test_bad_rows_of_indices_are_refused(text, words):
    with pytest.raises(RowError, match=words):
        recognise(LOG, INDICES, None).parse(text, 2)


@pytest.mark.parametrize("names", ["sequence,spike_index", "spike_index,sequence", "spike_index"])
def test_sync_rows_may_be_about_the_clock_alone(names):
    table = recognise(LOG, f"frame,start_us,stop_us,{names}", None)

    def parse(frame, start, stop, index):
        values = {"sequence": "a", "spike_index": index}
        return table.parse(",".join([frame, start, stop, *(values[name] for name in names.split(","))]), 5)

    both = parse("f", "-7", "9", "120")
    assert (both.exposure.start, both.sync.spike_index, both.sync.stamp_ns) == (-7000, 120, -7000)
    alone = parse("", "15.5", "", "140")
    assert alone.exposure is None and (alone.sync.spike_index, alone.sync.stamp_ns) == (140, 15_500)
    assert parse("f", "7", "9", "").sync is None
    for values in (("f", "7", "", "120"), ("", "7", "9", "120"), ("", "7", "", ""), ("", "", "", "120")):
        with pytest.raises(RowError, match="an empty value"):
            parse(*values)
    with pytest.raises(RowError, match=r"spike_index '1\.5'"):
        parse("f", "7", "9", "1.5")


def columns(**values):
    return TimestampColumns(**({"frame": "image", "unit": "ms"} | values))


@pytest.mark.parametrize(
    ("header", "settings", "text", "span"),
    [
        (
            "t,image,exp",
            {"start": "t", "duration": "exp", "duration_unit": "us"},
            "10,a,500",
            (10_000_000, 10_500_000),
        ),
        (
            "image t exp",
            {"middle": "t", "duration": "exp", "delimiter": " "},
            "a   10 4",
            (8_000_000, 12_000_000),
        ),
        (
            "image|exp|t",
            {"stop": "t", "duration": "exp", "delimiter": "|"},
            "a| 4 |10.5",
            (6_500_000, 10_500_000),
        ),
        (
            "image\tx\tb\te",
            {"start": "b", "stop": "e", "delimiter": "\t"},
            "a\t\t1\t2",
            (1_000_000, 2_000_000),
        ),
    ],
)
def test_tables_of_a_users_own_columns(header, settings, text, span):
    row = described(LOG, header, columns(**settings)).parse(text, 2)
    assert (row.exposure.frame, row.exposure.start, row.exposure.stop) == ("a", *span)


def test_rounding_of_stamp_and_length_adds_up():
    table = described(LOG, "image,t,exp", columns(start="t", duration="exp", duration_unit="us"))
    assert table.parse("a,10.25,500", 2).resolution == 11_000


def test_without_a_frame_column_rows_are_frames_by_their_order():
    table = described(LOG, "t,exp", columns(frame=None, start="t", duration="exp"))
    assert table.by_order and table.parse("10,4", 7, place=5).exposure.frame == "5"
    assert table.bad_row("10", 7, RowError("why"), place=5).frame == "5"


def test_columns_that_are_not_there_or_there_twice_are_named():
    with pytest.raises(AlignmentError, match="no column 'exp'"):
        described(LOG, "image,t", columns(start="t", duration="exp"))
    with pytest.raises(AlignmentError, match="more than one column 't'"):
        described(LOG, "image,t,t,exp", columns(start="t", duration="exp"))
