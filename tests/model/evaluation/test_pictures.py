"""The frames worth looking at are kept, and only those."""

import io
import math
import random

import pytest
import torch
from PIL import Image

from model.evaluation import pictures
from model.evaluation.judge import JudgedFrame
from model.evaluation.pictures import (
    LOSS,
    MIDDLE,
    SPREAD,
    WORST,
    WORST_OF_SEQUENCE,
    Album,
    middle_frames,
    panels,
    spread_frames,
)
from model.evaluation.scores import FrameScore


def frame(sequence: str, index: int, psnr: float | None, blurry: float = 20.0) -> JudgedFrame:
    names = ("blurry", "restored", "spikes") + (() if psnr is None else ("sharp",))
    images = {name: torch.full((3, 16, 20), 10 * i, dtype=torch.uint8) for i, name in enumerate(names)}
    values = {} if psnr is None else {"restored": psnr, "blurry": blurry}
    scores = tuple(
        FrameScore(sequence, f"{index:06d}", index, method, "rgb8-all", {"psnr": value, "ssim": 0.5})
        for method, value in values.items()
    )
    return JudgedFrame(sequence=sequence, frame=f"{index:06d}", index=index, images=images, scores=scores)


def offered(values: dict[str, list[float | None]], size: int, blurry: float = 20.0) -> Album:
    """An album that was shown frames of these PSNRs."""
    album = Album([(name, len(psnrs)) for name, psnrs in values.items()], size)
    for name, psnrs in values.items():
        for index, psnr in enumerate(psnrs):
            album.offer(frame(name, index, psnr, blurry))
    return album


def why(album: Album, kind: str) -> set[tuple[str, int]]:
    return {(one.sequence, one.index) for one, kinds in album.pictured() if kind in kinds}


VALUES = {"a": [30, 22, 25, 29], "b": [40, 39, 38, 41], "c": [28, 21, None, 20.5]}


def test_the_worst_frames_and_the_worst_of_the_worst_sequences_are_kept():
    album = offered(VALUES, 2)
    assert why(album, WORST) == {("c", 3), ("c", 1)}
    assert why(album, WORST_OF_SEQUENCE) == {("c", 3), ("a", 1)}


def test_the_least_gains_are_kept_and_infinite_ones_are_none():
    assert why(offered({"a": [30, math.inf, 19, 18]}, 2), LOSS) == {("a", 3), ("a", 2)}
    assert why(offered({"a": [30, 31]}, 1, blurry=math.inf), LOSS) == set()


def test_frames_whose_psnr_is_not_defined_are_never_the_worst():
    album = offered({"a": [math.nan, 30, None]}, 2)
    assert why(album, WORST) == why(album, WORST_OF_SEQUENCE) == why(album, LOSS) == {("a", 1)}


def test_the_same_are_kept_whatever_the_order_of_sequences():
    values = {f"s{i}": random.Random(i).choices(range(20, 30), k=5) for i in range(9)}
    backwards = dict(sorted(values.items(), reverse=True))
    for kind in (WORST, WORST_OF_SEQUENCE, LOSS):
        assert why(offered(values, 3), kind) == why(offered(backwards, 3), kind)


def test_frames_come_in_the_order_of_the_sequences_with_the_weightiest_reason_first():
    pictured = offered(VALUES, 1).pictured()
    places = [(one.sequence, one.index) for one, _ in pictured]
    assert places == [(name, index) for name in VALUES for index in range(4)]  # so small that all are shown
    reasons = {(one.sequence, one.index): kinds for one, kinds in pictured}
    assert reasons["c", 3] == (WORST, LOSS, WORST_OF_SEQUENCE, SPREAD)
    assert reasons["a", 2] == (MIDDLE,)


def test_what_is_kept_of_large_frames_does_not_grow_with_their_number(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(pictures, "SPREAD_BYTES", 10_000)  # room for about three of these frames
    album = offered({"a": list(range(20, 60)), "b": list(range(60, 20, -1))}, 2)
    kept = album.pictured()
    assert len(kept) <= 2 + 2 + 2 + 2 + 4 and len(why(album, SPREAD)) <= 4
    assert len(album.samples) == 2


def test_the_middle_frames_are_kept_whole_even_without_a_score():
    album = offered({"a": [None, None, None]}, 1)
    assert [kept.index for kept in album.samples] == [1]
    assert why(album, MIDDLE) == {("a", 1)} and why(album, WORST) == set()


def test_every_frame_has_a_thumbnail_until_there_are_too_many(monkeypatch: pytest.MonkeyPatch):
    album = offered({"a": [30] * 5, "b": [30] * 4}, 1)
    assert [len(album.thumbnails[name]) for name in "ab"] == [5, 4]
    assert decoded(album.thumbnails["a"][3].jpeg).size == (20, 16)
    monkeypatch.setattr(pictures, "MOST_THUMBNAILS", 4)
    monkeypatch.setattr(pictures, "SPREAD_BYTES", 0)
    # Every third, and number 4, which is pictured as the middle one.
    assert [one.index for one in offered({"a": [30] * 9}, 1).thumbnails["a"]] == [0, 3, 4, 6]


def test_middle_frames_are_spread_over_the_sequences():
    sequences = [(f"s{i}", 10 + i) for i in range(6)]
    assert middle_frames(sequences, 3) == {("s0", 5), ("s2", 6), ("s4", 7)}
    assert len(middle_frames(sequences, 99)) == 6
    assert middle_frames([("one", 1)], 4) == {("one", 0)}


def test_spread_frames_are_evenly_spread():
    assert spread_frames([("a", 4), ("b", 4)], 4) == {("a", 1), ("a", 3), ("b", 1), ("b", 3)}
    assert len(spread_frames([("a", 4), ("b", 4)], 99)) == 8
    assert spread_frames([("a", 4)], 0) == spread_frames([], 3) == frozenset()


def test_panels_are_in_a_row_with_what_there_is():
    larger = 13  # times 20 pixels across is 260, the first above 256
    assert panels(frame("a", 0, 30.0)).shape == (3, 8 + 20 + 16 * larger + 8, 8 + 4 * (20 * larger + 8))
    assert panels(frame("a", 0, None)).shape == (3, 8 + 20 + 16 * larger + 8, 8 + 3 * (20 * larger + 8))


def decoded(jpeg: bytes) -> Image.Image:
    return Image.open(io.BytesIO(jpeg))
