"""The picture of a check has a diagram for every sequence, with the curve where it belongs."""

import numpy as np
import pytest

from pipeline.alignment.check import SequenceOffset
from pipeline.alignment.offsets import Estimate, Estimates
from pipeline.alignment.plot import CELL_HEIGHT, CELL_WIDTH, COLOURS, GAP, MOST_DRAWN, draw_alignment
from pipeline.images import read_rgb


def found(key="train/a", verdict="aligned", best=0.0, **changes):
    offsets = tuple(range(-6, 7))
    error = tuple(1 + 0.02 * (d - best) ** 2 for d in offsets)
    whole = {"offset": 0, "low": best - 0.4, "high": best + 0.4, "offsets": offsets, "error": error}
    estimate = Estimate(verdict=verdict, best=best, **(whole | changes))
    return SequenceOffset(key=key, r2=0.9, frames=(), estimates=Estimates(whole=estimate, frames=()))


def drawn(found, tmp_path):
    draw_alignment(found, tmp_path / "curves.png")
    return read_rgb(tmp_path / "curves.png").transpose(1, 2, 0).astype(int)


def places_of(picture, verdict):
    """Mean column of the pixels in a verdict's colour; NaN where there are none."""
    near = np.abs(picture - np.array(COLOURS[verdict])).max(axis=2) < 30
    return np.argwhere(near)


def test_a_diagram_for_every_sequence(tmp_path):
    picture = drawn([found(f"train/{k}") for k in range(5)], tmp_path)
    assert picture.shape == (GAP + 2 * (CELL_HEIGHT + GAP), GAP + 3 * (CELL_WIDTH + GAP), 3)
    cells = [
        picture[GAP + row * (CELL_HEIGHT + GAP) :, GAP + column * (CELL_WIDTH + GAP) :][
            :CELL_HEIGHT, :CELL_WIDTH
        ]
        for row in range(2)
        for column in range(3)
    ]
    assert [len(places_of(cell, "aligned")) > 50 for cell in cells] == [True] * 5 + [False]


def test_the_dot_is_at_the_best_offset_and_lowest(tmp_path):
    left, right = (
        places_of(drawn([found(best=best, verdict="shifted", offset=round(best))], tmp_path)[70:], "shifted")
        for best in (-4.0, 4.0)
    )
    lowest = [np.median(points[points[:, 0] >= points[:, 0].max() - 3][:, 1]) for points in (left, right)]
    assert lowest[1] - lowest[0] == pytest.approx(8 * (300 - 44 - 12) / 12, abs=4)


def test_nothing_decided_is_drawn_in_grey(tmp_path):
    picture = drawn([found(verdict="undecidable")], tmp_path)
    assert len(places_of(picture, "undecidable")) > 50 and not len(places_of(picture, "aligned"))
    bare = found(verdict="undecidable", offsets=(), error=(), low=None, high=None)
    assert drawn([bare], tmp_path).shape[0] == 2 * GAP + CELL_HEIGHT


def test_of_very_many_those_that_are_off_are_drawn(tmp_path):
    many = [found(f"train/{k}") for k in range(MOST_DRAWN)]
    picture = drawn([*many, found("train/off", "shifted", best=3.0, offset=3)], tmp_path)
    assert len(places_of(picture[: GAP + CELL_HEIGHT, : GAP + CELL_WIDTH], "shifted")) > 50


def test_refuses_to_draw_nothing(tmp_path):
    with pytest.raises(ValueError, match="no sequences"):
        draw_alignment([], tmp_path / "curves.png")
