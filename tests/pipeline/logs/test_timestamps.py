import contextlib
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.errors import AlignmentError, FormatError
from pipeline.logs.settings import TimestampColumns
from pipeline.logs.timestamps import read_log, write_log
from pipeline.logs.timing_overview import log_facts

SECONDS = "frame_idx,t0,t1,event_count,seq\n"


def log_file(folder: Path, text: str) -> Path:
    path = folder / "align.txt"
    path.write_text(text)
    return path


def test_reads_the_seconds_dialect_exactly(tmp_path):
    log = read_log(
        log_file(tmp_path, SECONDS + "0031,0.015000,0.047000,812345,train\\002\\occ008.320_f2881\n")
    )
    (row,) = log.rows
    assert (log.dialect, log.resolution_ns) == ("seconds", 1000)
    assert (row.frame, row.sequence, row.line) == ("31", "train/002/occ008.320_f2881", 2)
    assert (row.start, row.stop) == (15_000_000, 47_000_000)
    assert log.of("train/002/occ008.320_f2881") == {"31": row}
    assert log.of("val/002") == {}


@pytest.mark.parametrize(("unit", "factor"), [("ns", 1), ("us", 1000), ("ms", 10**6), ("s", 10**9)])
def test_reads_the_csv_dialect_in_every_unit(tmp_path, unit, factor):
    log = read_log(log_file(tmp_path, f"frame,start_{unit},stop_{unit}\r\n0007_002,3,12.5\r\n\r\n"))
    (row,) = log.rows
    assert log.dialect == "csv"
    assert (row.frame, row.sequence, row.start) == ("0007_002", None, 3 * factor)
    assert row.stop == round(Fraction("12.5") * factor)
    assert log.resolution_ns == max(1, factor // 10)
    assert log.of("any", "name") == {"0007_002": row}


def test_one_csv_log_may_serve_several_sequences(tmp_path):
    log = read_log(log_file(tmp_path, "frame,start_us,stop_us,sequence\n0,1,2,a\n0,3,4,b\n"))
    assert log.of("train/a", "a")["0"].start == 1000
    assert log.of("train/b", "b")["0"].start == 3000
    assert log.of("c") == {}


def test_decimals_that_no_float_holds_stay_exact(tmp_path):
    log = read_log(log_file(tmp_path, "frame,start_s,stop_s\na,123456789.123456789,123456789.123456790\n"))
    assert (log.rows[0].start, log.rows[0].stop) == (123456789123456789, 123456789123456790)


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("31,0.015,0.047,5", "4 values, expected 5"),
        ("31,0.015,0.047,5,a,b", "6 values, expected 5"),
        ("31,0.015,,5,a", "an empty value"),
        ("x,0.015,0.047,5,a", "frame_idx 'x'"),
        ("31.0,0.015,0.047,5,a", "frame_idx '31.0'"),
        ("31,0.015s,0.047,5,a", "start '0.015s'"),
        ("31,0.015,nan,5,a", "stop 'nan'"),
        ("31,1e-2,0.047,5,a", "start '1e-2'"),
        ("31,0.015,0.047,many,a", "event_count 'many'"),
        ("31,0.0,0.0,0,a", "placeholder"),
        ("3,-0.013000,0.019000,5,a", "before the recording"),
        ("31,0.047,0.015,5,a", "reversed"),
        ("31,0.047,0.047,5,a", "empty"),
    ],
)
def test_a_wrong_row_is_named_with_file_line_and_value(tmp_path, row, words):
    path = log_file(tmp_path, SECONDS + "30,0.014000,0.046000,1,a\n" + row + "\n")
    with pytest.raises(AlignmentError) as caught:
        read_log(path)
    assert caught.value.problem.startswith(f"{path}:3: ")
    assert words in caught.value.problem
    assert repr(row) in caught.value.problem


def test_set_aside_rows_keep_their_line_sequence_and_frame(tmp_path):
    text = SECONDS + "031,0.0,0.0,0,a\n32,0.01,0.02,1,a\nbroken\n"
    log = read_log(log_file(tmp_path, text), quarantine=True)
    assert [row.frame for row in log.rows] == ["32"]
    assert [(row.line, row.sequence, row.frame) for row in log.bad_rows] == [(2, "a", "31"), (4, None, None)]
    assert [row.line for row in log.bad_of("a")] == [2, 4]
    assert [row.line for row in log.bad_of("b")] == [4]


def test_neither_of_two_rows_for_a_frame_is_used(tmp_path):
    text = SECONDS + "7,0.01,0.02,1,a\n8,0.02,0.03,1,a\n007,0.03,0.04,1,a\n7,0.01,0.02,1,b\n"
    with pytest.raises(AlignmentError, match="frame 7 of a appears 2 times: lines 2, 4"):
        read_log(log_file(tmp_path, text))
    log = read_log(tmp_path / "align.txt", quarantine=True)
    assert [(row.frame, row.sequence) for row in log.rows] == [("8", "a"), ("7", "b")]
    assert [row.line for row in log.bad_rows] == [2, 4]


def test_many_wrong_rows_are_counted(tmp_path):
    with pytest.raises(AlignmentError, match="and 12 more rows"):
        read_log(log_file(tmp_path, SECONDS + "x\n" * 20))


@pytest.mark.parametrize("header", ["", "frame,t0,t1", "frame,start_us,stop_ms", "frame;start_us;stop_us"])
def test_an_unknown_header_is_shown_beside_the_known_ones(tmp_path, header):
    with pytest.raises(AlignmentError) as caught:
        read_log(log_file(tmp_path, header + "\n1,2,3\n"))
    known = (SECONDS.strip(), "split,scene,sub,frame,t0_idx,t1_idx,events", "frame,start_us,stop_us", ">unix")
    assert all(one in caught.value.problem for one in known)
    assert f"align.txt:1: header {header!r}" in caught.value.problem


def test_the_header_must_be_of_the_dialect_asked_for(tmp_path):
    with pytest.raises(AlignmentError, match="expected frame,start_us,stop_us"):
        read_log(log_file(tmp_path, SECONDS), "csv")
    with pytest.raises(AlignmentError, match="expected frame_idx"):
        read_log(log_file(tmp_path, "frame,start_ns,stop_ns\n"), "seconds")


def test_refuses_what_is_no_text_file(tmp_path):
    (tmp_path / "binary").write_bytes(b"frame\xff\xfe")
    for name in ("binary", "absent", "."):
        with pytest.raises(FormatError):
            read_log(tmp_path / name)


def test_written_logs_read_back(tmp_path):
    start, stop = np.array([0, 520_833]), np.array([520_833, 45_833_333])
    write_log(tmp_path / "a.csv", ["000000", "000001"], start, stop)
    assert (
        tmp_path / "a.csv"
    ).read_text() == "frame,start_ns,stop_ns\n000000,0,520833\n000001,520833,45833333\n"
    log = read_log(tmp_path / "a.csv")
    assert log.resolution_ns == 1
    assert [(row.frame, row.start, row.stop) for row in log.rows] == [
        ("000000", 0, 520_833),
        ("000001", 520_833, 45_833_333),
    ]


def test_written_sharp_instants_read_back(tmp_path):
    start, stop, sharp = np.array([0, 500]), np.array([400, 900]), np.array([0, 899])
    write_log(tmp_path / "a.csv", ["a", "b"], start, stop, sharp)
    assert [row.sharp for row in read_log(tmp_path / "a.csv").rows] == [0, 899]
    with pytest.raises(ValueError):
        write_log(tmp_path / "b.csv", ["a", "b"], start, stop, sharp[:1])


def test_a_sharp_instant_that_was_cut_short_is_none(tmp_path):
    text = "frame,start_ms,stop_ms,sharp_ms\n" + "".join(f"{k},{k}00,{k}90,{k}55.25\n" for k in range(1, 6))
    assert len(read_log(log_file(tmp_path, text[:-1])).rows) == 5
    with pytest.raises(AlignmentError, match="cut short"):
        read_log(log_file(tmp_path, text[:-2]))


@pytest.mark.parametrize("frame", ["a,b", "a\nb", " a"])
def test_refuses_to_write_names_that_would_not_read_back(tmp_path, frame):
    with pytest.raises(ValueError, match="cannot be written"):
        write_log(tmp_path / "a.csv", [frame], np.array([0]), np.array([1]))
    with pytest.raises(ValueError):
        write_log(tmp_path / "a.csv", ["a", "b"], np.array([0]), np.array([1]))
    assert not (tmp_path / "a.csv").exists()


def test_a_last_row_that_was_cut_short_is_no_row(tmp_path):
    rows = [f"{k},0.{k}00000,0.{k}12345" for k in range(1, 6)]
    text = "\n".join(["frame,start_s,stop_s", *rows])
    assert len(read_log(log_file(tmp_path, text)).rows) == 5
    assert (
        len(read_log(log_file(tmp_path, text[:-1] + "\n")).rows) == 5
    )  # a line break ends it: so it was written
    with pytest.raises(AlignmentError, match=r"align.txt:6: shorter than all other rows"):
        read_log(log_file(tmp_path, text[:-1]))
    log = read_log(tmp_path / "align.txt", quarantine=True)
    assert [row.frame for row in log.bad_rows] == ["5"] and log.cut_line == 6


def test_logs_without_trailing_zeros_are_not_cut_short(tmp_path):
    text = "frame,start_s,stop_s\na,0.05,0.0625\nb,0.1,0.1125\nc,0.15,0.2"
    assert len(read_log(log_file(tmp_path, text)).rows) == 3


def test_a_length_that_was_cut_short_is_no_length(tmp_path):
    columns = TimestampColumns(frame="f", start="t", duration="d", unit="us")
    text = "f,t,d\na,10,13265\nb,20,13270\nc,30,13264\nd,40,13266"
    assert len(read_log(log_file(tmp_path, text), columns=columns).rows) == 4
    with pytest.raises(AlignmentError, match="cut short"):
        read_log(log_file(tmp_path, text[:-1]), columns=columns)


def test_every_dialect_is_recognised(tmp_path):
    texts = {
        "indices": "split,scene,sub,frame,t0_idx,t1_idx,events\ntrain,a,b,7,3,9,1\n",
        "csv": "frame,start_us,stop_us,spike_index\n,1,,0\na,5,9,\n",
        "pairs": ">unix standard time stamp:1s,5us\nExp Time:7 us,Gain:1\n",
    }
    for dialect, text in texts.items():
        path = log_file(tmp_path, text)
        assert read_log(path).dialect == read_log(path, dialect).dialect == dialect
        with pytest.raises(AlignmentError, match="expected frame_idx"):
            read_log(path, "seconds")
    log = read_log(log_file(tmp_path, texts["csv"]))
    assert (log.sync_of("any")[0].stamp_ns, len(log.rows)) == (1000, 1)
    assert read_log(log_file(tmp_path, texts["indices"])).unit == "spike frames"
    assert read_log(log_file(tmp_path, texts["pairs"])).by_order


MIDDLE = TimestampColumns(frame="f", middle="t", duration="d", spike_index="s", unit="ms", delimiter=" ")
WHOLE = {
    SECONDS + "30,0.014000,0.046000,1,a\n31,0.015000,0.047000,1,a\n": None,
    "frame,start_us,stop_us,sequence,spike_index\n,1,,a,0\na,5,9.5,a,7\n": None,
    "split,scene,sub,frame,t0_idx,t1_idx,events\ntrain,a,b,7,3,9,1\n": None,
    "\n".join([">unix standard time stamp:1s,5us", "Exp Time:7 us,Gain:1"] * 2): None,
    "f t d s\na 5 1.5 3\nb 7 1.5 5\n": MIDDLE,
}


@st.composite
def damaged(draw):
    """A good log with pieces taken out, put in or exchanged."""
    text, columns = draw(st.sampled_from(sorted(WHOLE.items(), key=str)))
    for _ in range(draw(st.integers(0, 4))):
        a, b = sorted((draw(st.integers(0, len(text))), draw(st.integers(0, len(text)))))
        pieces = ["", text[a:b] * 2, "9" * 30, "-", ".", ",", "\n", "\r", "\x00", "٣", "1e9", " "]
        text = text[:a] + draw(st.sampled_from(pieces)) + text[b:]
    return text, columns


@settings(max_examples=300, deadline=2000, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(damaged() | st.tuples(st.text(max_size=200), st.sampled_from([None, MIDDLE])))
def test_any_text_gives_a_log_or_our_error(tmp_path, made):
    text, columns = made
    path = tmp_path / "fuzz.txt"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    for quarantine in (False, True):
        with contextlib.suppress(AlignmentError, FormatError):
            log = read_log(path, quarantine=quarantine, columns=columns)
            assert all(row.stop > row.start for row in log.rows)
            assert all(row.spike_index >= 0 for row in log.sync)
            assert quarantine or not log.bad_rows
    with contextlib.suppress(AlignmentError, FormatError):
        assert log_facts(path)["kind"] == "log"
