import os

import pytest

from pipeline.errors import AlignmentError
from pipeline.logs.timing_overview import TIMING_COLUMNS, fault_lines, is_log, log_facts, timing_row

PAIRS = ">unix standard time stamp:{}s,{}us\nExp Time:4000 us,Gain:1\n"


def csv(starts, **more):
    rows = [f"{k},{start},{start + 10000}" for k, start in enumerate(starts)]
    return "\n".join(["frame,start_us,stop_us", *rows, *more.get("rows", ())]) + "\n"


def test_a_log_tells_its_dialect_its_rows_and_what_is_wrong(tmp_path):
    starts = [1000 + 40_000 * k + 7000 * (k >= 20) for k in range(30) if k not in (5, 6)]
    (tmp_path / "a.csv").write_text(csv(starts, rows=["99,x,1"]))
    facts = log_facts(tmp_path / "a.csv")
    assert (facts["kind"], facts["dialect"], facts["rows"], facts["resolution_ns"]) == (
        "log",
        "csv",
        28,
        1000,
    )
    assert facts["bad_rows"][0]["line"] == 30 and "'x' is not a decimal" in facts["bad_rows"][0]["reason"]
    (timing,) = facts["timing"]
    assert (timing["sequence"], timing["gaps"], timing["missing"], timing["steps"]) == ("a.csv", 1, 2, 1)
    row = dict(zip(TIMING_COLUMNS, timing_row(timing), strict=True))
    assert row["rate"] == "25.000 Hz" and row["exposure"] == "10 ms" and row["set aside"] == "10"
    assert row["noticed"] == "1 gap, 2 missing frames, 1 step, 1 bad row"
    assert fault_lines(timing) == ["a.csv: step at frame 18 (line 20), 7 ms"]


def test_every_sequence_of_a_log_has_its_row(tmp_path):
    lines = ["split,scene,sub,frame,t0_idx,t1_idx,events"]
    lines += [f"train,{scene},,{k},{88 * k + 1},{88 * k + 89},5" for scene in "ab" for k in range(5)]
    (tmp_path / "i.txt").write_text("\n".join(lines))
    facts = log_facts(tmp_path / "i.txt")
    assert facts["unit"] == "spike frames" and [t["sequence"] for t in facts["timing"]] == [
        "train/a",
        "train/b",
    ]
    row = dict(zip(TIMING_COLUMNS, timing_row(facts["timing"][0]), strict=True))
    assert row["rate"] == "every 88 spike frames" and row["exposure"] == "88 spike frames"


def test_sync_rows_show_how_well_they_fit(tmp_path):
    rows = [f",{1000 + 50 * 1000 * k},,{1000 * k}" for k in range(12)]
    rows += [f"{k},{5000 + 40_000 * k},{15_000 + 40_000 * k}," for k in range(12)]
    (tmp_path / "s.csv").write_text("\n".join(["frame,start_us,stop_us,spike_index", *rows]))
    (timing,) = log_facts(tmp_path / "s.csv")["timing"]
    assert timing["clock"]["sync_rows"] == 12 and timing["clock"]["rate_hz"] == 20000.0
    assert timing["clock"]["drift_ppm"] is None and timing["clock"]["rms_ns"] == 0
    assert timing_row(timing)[-1] == "12 sync, rms 0.000"


def test_pairs_are_known_by_their_first_line(tmp_path):
    (tmp_path / "p.txt").write_text(
        "".join(PAIRS.format(100 + k // 25, 40_000 * (k % 25)) for k in range(50))
    )
    facts = log_facts(tmp_path / "p.txt")
    assert (facts["dialect"], facts["rows"], facts["timing"][0]["rate_hz"]) == ("pairs", 50, 25.0)


@pytest.mark.parametrize("content", [b"", b"frame,t\n", b"\xff\xfe", b"step 1 loss 2\n", b"frame,start_us"])
def test_other_files_are_no_logs(tmp_path, content):
    (tmp_path / "x.txt").write_bytes(content)
    assert not is_log(tmp_path / "x.txt")
    assert not is_log(tmp_path) and not is_log(tmp_path / "absent")


def test_a_pipe_is_no_log_and_is_not_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe.txt")
    assert not is_log(tmp_path / "pipe.txt")


def test_a_file_that_is_no_log_cannot_be_read_as_one(tmp_path):
    (tmp_path / "x.txt").write_text("nothing\n")
    with pytest.raises(AlignmentError):
        log_facts(tmp_path / "x.txt")
