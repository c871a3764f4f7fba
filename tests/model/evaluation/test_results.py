"""Scores as JSON and tables."""

import csv
import io
import json
import math

from model.evaluation.protocols import PROTOCOLS
from model.evaluation.results import Results
from model.evaluation.scores import FrameScore

RGB8 = PROTOCOLS["rgb8-all"]


def results() -> Results:
    scores = [
        FrameScore(
            sequence,
            f"{i}",
            i,
            method,
            "rgb8-all",
            {"psnr": psnr + (2 if method == "restored" else 0), "ssim": 0.5},
        )
        for sequence, values in {"a,1": [30.0, 32.0], "b": [20.0]}.items()
        for i, psnr in enumerate(values)
        for method in ("blurry", "restored")
    ]
    return Results(
        split="test",
        protocols=(RGB8,),
        methods=("restored", "blurry"),
        frames={"a,1": 2, "b": 3},
        scores=tuple(scores),
        provenance={"store": {"name": "x"}},
    )


def test_summary_holds_the_protocol_beside_both_means():
    summary = results().summary(RGB8)
    assert summary["protocol"] == "rgb8-all" and "8 bit" in summary["definition"]
    restored = summary["methods"]["restored"]
    assert (round(restored["psnr"], 9), restored["sequence_psnr"]) == (round(88 / 3, 9), 27.5)
    assert (summary["frames"], summary["unscored_frames"]) == (5, 2)
    assert summary["store"] == {"name": "x"}
    json.dumps(summary, allow_nan=False)


def test_rows_are_in_the_order_of_the_methods():
    assert [(row["name"], row["ssim"]) for row in results().rows()] == [("restored", 0.5), ("blurry", 0.5)]


def test_tables_read_back_with_names_that_hold_commas():
    frames = list(csv.DictReader(io.StringIO(results().per_frame_csv(RGB8))))
    assert len(frames) == 6
    assert frames[1] == {
        "protocol": "rgb8-all",
        "split": "test",
        "sequence": "a,1",
        "frame": "0",
        "index": "0",
        "method": "restored",
        "psnr": "32.000000",
        "ssim": "0.50000000",
    }
    sequences = list(csv.DictReader(io.StringIO(results().per_sequence_csv(RGB8))))
    assert [(row["sequence"], row["method"], row["psnr"], row["scored"]) for row in sequences] == [
        ("a,1", "restored", "33.000000", "2"),
        ("a,1", "blurry", "31.000000", "2"),
        ("b", "restored", "22.000000", "1"),
        ("b", "blurry", "20.000000", "1"),
    ]


def test_an_infinite_psnr_is_inf_in_tables():
    scores = (FrameScore("a", "0", 0, "restored", "rgb8-all", {"psnr": math.inf, "ssim": 1.0}),)
    one = Results(
        split="test", protocols=(RGB8,), methods=("restored",), frames={"a": 1}, scores=scores, provenance={}
    )
    assert ",inf,1.0" in one.per_frame_csv(RGB8)
    assert one.summary(RGB8)["methods"]["restored"]["psnr"] is None


def test_a_value_that_is_not_defined_is_an_empty_cell_and_null():
    change = PROTOCOLS["rgb8-change"]
    scores = [
        FrameScore("a", f"{i}", i, "restored", change.name, {"psnr": 40.0, "ssim": 1.0, "psnr_change": value})
        for i, value in enumerate((math.nan, 30.0))
    ]
    found = Results(
        split="test",
        protocols=(change,),
        methods=("restored",),
        frames={"a": 2, "b": 1},
        scores=tuple(scores),
        provenance={},
    )
    frames = csv.DictReader(io.StringIO(found.per_frame_csv(change)))
    assert [row["psnr_change"] for row in frames] == ["", "30.000000"]
    sequences = csv.DictReader(io.StringIO(found.per_sequence_csv(change)))
    assert [(row["psnr"], row["psnr_change"]) for row in sequences] == [("40.000000", "30.000000"), ("", "")]
    assert found.summary(change)["methods"]["restored"]["psnr_change"] == 30
    nothing = Results(
        split="test", protocols=(change,), methods=("restored",), frames={}, scores=(), provenance={}
    )
    assert nothing.rows()[0] == {"name": "restored", "psnr": None, "ssim": None, "psnr_change": None}


def test_frames_that_a_protocol_leaves_out_are_unscored_by_it():
    score = FrameScore("a", "2", 2, "restored", "shiftnet-48", {"psnr": 40.0, "ssim": 1.0})
    both = (RGB8, PROTOCOLS["shiftnet-48"])
    others = [FrameScore("a", f"{i}", i, "restored", "rgb8-all", score.values) for i in range(3)]
    found = Results(
        split="test",
        protocols=both,
        methods=("restored",),
        frames={"a": 3},
        scores=(score, *others),
        provenance={},
    )
    assert [found.summary(protocol)["unscored_frames"] for protocol in both] == [0, 2]
