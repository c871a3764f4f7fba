"""How the frames spread: bars count the right frames, points are where they belong."""

import math
import re

from model.report import distribution
from model.report.distribution import histogram, scatter
from model.report.frames import FrameRow


def rows_of(*pairs: tuple[float, float], name: str = "a") -> list[FrameRow]:
    return [FrameRow(name, f"{i}", i, {"restored": r, "blurry": b}) for i, (r, b) in enumerate(pairs)]


def test_every_finite_gain_is_in_one_bar_and_losses_are_red(read_html):
    gains = [-1.0, -0.1, 0.0, 0.4, 2.0, 2.0, 3.0]
    html = histogram(rows_of(*((30 + gain, 30.0) for gain in gains), (math.inf, 30.0)))
    bars = re.findall(r'<rect class="(\w+)".*?<title>(.*?) to (.*?) dB: (\d+) frame', html)
    assert sum(int(count) for *_, count in bars) == len(gains)
    assert {kind for kind, low, *_ in bars if low.startswith("−")} == {"lost"}
    assert {kind for kind, low, *_ in bars if not low.startswith("−")} == {"won"}
    assert "7 frames; median +0.40" in html and read_html(html).open == []


def test_a_single_frame_makes_a_bar():
    assert histogram(rows_of((30.0, 28.0))).count("<rect") == 1


def test_points_lie_by_both_psnrs_above_the_diagonal_where_they_gain(read_html):
    html = scatter(rows_of((40.0, 30.0), (35.0, 40.0), name='a"<'))
    assert re.findall(r'<circle class="(\w+)" cx="([\d.]+)" cy="([\d.]+)"', html) == [
        ("won", "0.00", "0.00"),
        ("lost", "100.00", "50.00"),
    ]
    assert 'data-sequence="a&quot;&lt;" data-index="1"' in html and read_html(html).open == []


def test_of_very_many_frames_some_are_drawn(monkeypatch):
    monkeypatch.setattr(distribution, "MOST_POINTS", 4)
    assert scatter(rows_of(*[(30.0, 29.0)] * 9)).count("<circle") == 3


def test_without_a_finite_gain_they_say_so():
    for plot in (histogram, scatter):
        assert plot(rows_of((math.inf, 30.0))) == plot([]) == "<p>No frame has a finite gain.</p>"
