"""Frames one by one: which are scored, what they gain."""

import dataclasses
import math

from model.report.frames import FrameRow, frame_rows


def test_a_row_has_the_psnr_of_every_method(results_of):
    rows = frame_rows(results_of({"a": {"restored": [30.0, 31.0], "blurry": [28.0, 32.0]}}))
    assert [row.name for row in rows] == ["a / 000000", "a / 000001"]
    assert rows[0].psnrs == {"restored": 30.0, "blurry": 28.0}
    assert [(row.gain, row.won) for row in rows] == [(2.0, True), (-1.0, False)]


def test_an_identical_frame_wins_without_a_gain():
    row = FrameRow("a", "0", 0, {"restored": math.inf, "blurry": 30.0})
    assert (row.gain, row.won) == (None, True)


def test_frames_without_a_psnr_are_left_out(results_of):
    results = results_of({"a": {"restored": [30.0, math.nan], "blurry": [28.0, 28.0]}})
    assert [row.index for row in frame_rows(results)] == [0]


def test_without_a_protocol_that_gives_one_there_are_none(results_of):
    results = results_of({"a": {"restored": [30.0], "blurry": [28.0]}})
    other = dataclasses.replace(results.protocols[0], metrics=("lpips",))
    assert frame_rows(dataclasses.replace(results, protocols=(other,))) == []
