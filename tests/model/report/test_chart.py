"""The plot of PSNR over frames: every value where it belongs, and no more points than can be drawn."""

import math
import re

import pytest

from model.report import chart as report_chart
from model.report.chart import Plot, chart, legend, plot_of
from model.report.frames import frame_rows


def one_line(*values: float) -> Plot:
    points = tuple(("a", f"{i}", i) for i in range(len(values)))
    return Plot(points=points, lines=(("Restored", "red", values),), frames_per_point=1)


def plot_from(results) -> Plot | None:
    return plot_of(results, frame_rows(results))


def test_restored_is_drawn_last_and_named_first(results_of):
    results = results_of({"a": {"restored": [30.0, 31.0], "x": [20.0, 21.0], "blurry": [10.0, 11.0]}})
    plot = plot_from(results)
    assert [(label, values) for label, _, values in plot.lines] == [
        ("Blurry input", (10.0, 11.0)),
        ("x", (20.0, 21.0)),
        ("Restored", (30.0, 31.0)),
    ]
    assert plot.points == (("a", "000000", 0), ("a", "000001", 1)) and plot.frames_per_point == 1
    assert [line["label"] for line in plot.to_json()["lines"]] == ["Restored", "x", "Blurry input"]
    assert re.findall(r"</span>([^<]+)</span>", legend(results)) == ["Restored", "x", "Blurry input"]


def test_methods_that_saw_altered_data_are_not_plotted(results_of):
    plot = plot_from(results_of({"a": {"restored": [30.0], "spikes=zero": [20.0], "blurry": [10.0]}}))
    assert [label for label, _, _ in plot.lines] == ["Blurry input", "Restored"]


def test_what_the_script_reads_is_json_without_infinity(results_of):
    plot = plot_from(results_of({"a": {"restored": [30.12345, math.inf]}}))
    assert plot.to_json() == {
        "points": (("a", "000000", 0), ("a", "000001", 1)),
        "lines": [{"label": "Restored", "colour": "var(--m0)", "values": [30.123, None]}],
    }


def test_values_lie_between_the_lowest_and_the_highest_level():
    # Levels 30, 32, ... 40: 30 is at the bottom, 35 half way up, 40 at the top; points are in the middle of quarters.
    html = chart(one_line(30.0, 35.0, 36.0, 40.0), "all")
    assert 'd="M12.500 100.00h.01L37.500 50.00L62.500 40.00L87.500 0.00"' in html
    assert 'style="top:80.00%">32</span>' in html and 'data-plot="all"' in html


def test_a_line_breaks_where_a_frame_is_identical():
    html = chart(one_line(30.0, math.inf, 35.0, 40.0), "all")
    assert 'd="M12.500 100.00h.01M62.500 50.00h.01L87.500 0.00"' in html


def test_without_a_finite_value_it_says_so():
    for plot in (None, one_line(math.inf, math.inf)):
        assert chart(plot, "all") == "<p>No frame has a finite PSNR to plot.</p>"


def test_no_scores_no_plot(results_of):
    assert plot_from(results_of({"a": {"restored": []}})) is None


def test_sequences_are_divided_and_named_under_their_spans(results_of, read_html):
    psnr = {"a<b": {"restored": [30.0, 31.0, 32.0]}, "c": {"restored": [33.0]}}
    html = chart(plot_from(results_of(psnr)), "all")
    assert html.count("stroke-dasharray") == 1 and '<line x1="75.000" x2="75.000"' in html
    assert 'style="left:37.50%;max-width:75.00%">a&lt;b</span>' in html
    assert 'style="left:87.50%;max-width:25.00%">c</span>' in html
    assert read_html(html).open == []


def test_a_single_sequence_has_its_first_and_last_frame_named(results_of):
    html = chart(plot_from(results_of({"a": {"restored": [30.0, 31.0, 32.0]}})), "s0")
    assert '<span class="x first">000000</span><span class="x last">000002</span>' in html


def test_many_sequences_are_counted_instead(results_of):
    twelve, thirteen = ({f"s{i}": {"restored": [30.0 + i]} for i in range(n)} for n in (12, 13))
    assert "12 sequences" not in chart(plot_from(results_of(twelve)), "all")
    html = chart(plot_from(results_of(thirteen)), "all")
    assert "13 sequences" in html and ">s0<" not in html


def test_long_tests_are_plotted_with_a_bounded_number_of_points(made, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(report_chart, "MAX_POINTS", 4)
    results, _ = made(frames=5, sequences=("a", "b"))
    plot = plot_from(results)
    assert plot.frames_per_point == 3
    # A point never spans sequences.
    assert [(name, index) for name, _, index in plot.points] == [("a", 0), ("a", 3), ("b", 0), ("b", 3)]
    # Restored, on top: means of 33, 34, 35 and of 36, 37.
    assert plot.lines[-1][2] == (34.0, 36.5, 34.0, 36.5)
    assert plot.edges == ((0, "a"), (2, "b"))
    assert "mean of 3 frames" in chart(plot, "all")
