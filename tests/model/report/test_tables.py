"""Sequences, worst frames and the data's quality, cell by cell."""

import dataclasses
import math
import re

from model.report.frames import frame_rows
from model.report.tables import data_table, sequence_table, worst_lists


def test_each_sequence_tells_what_was_gained_and_its_worst_frame(results_of, read_html):
    psnr = {
        "up": {"restored": [33.0, 31.0], "x": [34.0, 34.0], "blurry": [30.0, 30.0]},
        "down": {"restored": [28.5], "x": [20.0], "blurry": [30.0]},
        "perfect": {"restored": [math.inf], "x": [20.0], "blurry": [30.0]},
    }
    results = results_of(psnr)
    html = sequence_table(results, frame_rows(results), {("up", 1)})
    head, *rows = read_html(html).rows
    assert head == [
        *("sequence", "frames", "RestoredPSNR (dB)", "RestoredSSIM", "xPSNR (dB)", "Blurry inputPSNR (dB)"),
        *("gain overblurry (dB)", "worst framePSNR (dB)"),
    ]
    assert rows == [
        ["up", "2", "32.00", "0.5000", "34.00", "30.00", "+2.00", "000001 · 31.00"],
        ["down", "1", "28.50", "0.5000", "20.00", "30.00", "−1.50", "000000 · 28.50"],
        ["perfect", "1", "∞", "0.5000", "20.00", "30.00", "–", "000000 · ∞"],
    ]
    assert re.findall(r'<td class="(gain|loss)"', html) == ["gain", "loss"]
    assert re.findall(r'<td class="best"[^>]*>(\S+?)<', html) == ["34.00", "30.00", "∞"]
    assert re.findall(r'<button class="link" data-sequence="(\w+)" data-index="(\d)"', html) == [("up", "1")]


def test_doubtful_data_is_marked_beside_the_score(results_of, quality_of):
    results = results_of(
        {"a": {"restored": [30.0], "blurry": [29.0]}, "b": {"restored": [30.0], "blurry": [29.0]}}
    )
    bad = quality_of(timing={"verdict": "irregular"})
    results = dataclasses.replace(results, quality={"a": quality_of(), "b": bad})
    html = sequence_table(results, frame_rows(results), ())
    assert html.count("data?") == 1 and 'title="irregular times"' in html


def test_the_worst_frames_are_listed_by_psnr_and_by_gain(results_of, read_html):
    results = results_of(
        {"a": {"restored": [30.0 + i for i in range(12)], "blurry": [29.0 + 1.1 * i for i in range(12)]}}
    )
    html = worst_lists(frame_rows(results), {("a", 0)})
    assert re.findall("<caption>(.*?)</caption>", html) == ["Lowest PSNR", "Largest loss against blurry"]
    rows = [row for row in read_html(html).rows if row[0] != "frame"]
    assert len(rows) == 2 * 10
    assert rows[0] == ["a / 000000", "30.00", "+1.00"] and rows[10] == ["a / 000011", "41.00", "−0.10"]
    assert html.count('class="link"') == 1


def test_without_a_loss_the_list_says_so(results_of):
    results = results_of({"a": {"restored": [30.0], "blurry": [29.0]}})
    assert "Least gain over blurry" in worst_lists(frame_rows(results), ())
    assert worst_lists([], ()) == "<p>No frame has a PSNR.</p>"


def test_the_data_of_each_sequence_stands_beside_its_score(results_of, quality_of, read_html):
    results = results_of({name: {"restored": [30.0], "blurry": [29.0]} for name in ("fine", "gaps", "dark<")})
    light = quality_of().light
    quality = {
        "fine": quality_of(),
        "gaps": quality_of(runs=2, offset=-3, spike_frames=(80, 88), faults=("gaps: step at frame 7, 4 ms",)),
        "dark<": quality_of(timing={}, light=dataclasses.replace(light, r2_median=0.41, questionable=True)),
    }
    html = data_table(dataclasses.replace(results, quality=quality))
    elements = read_html(html)
    fine, gaps, dark = elements.rows[1:]
    assert fine == [
        *("fine", "no objection", "30.00", "0.970", "0.910", "0.980", "0.011", "2.1", "0", "1", "88"),
        *("240 Hz", "3 us"),
    ]
    assert gaps[1] == "1 gap" and gaps[8:11] == ["−3", "2", "80 to 88"]
    assert dark[:2] == ["dark<", "frames do not fit their spikes: median R² 0.41"] and dark[-2:] == ["–"] * 2
    assert "gaps: 1 remark" in elements.text and "step at frame 7" in elements.text and elements.open == []


def test_columns_that_nothing_is_known_for_are_not_there(results_of, quality_of, read_html):
    results = results_of({"a": {"restored": [30.0], "blurry": [29.0]}})
    assert data_table(results) == "<p>Nothing is known of the data.</p>"
    html = data_table(dataclasses.replace(results, quality={"a": quality_of(timing={}, light=None)}))
    assert "R²" not in html and "jitter" not in html and len(read_html(html).rows[1]) == 7


def test_names_are_escaped(results_of, quality_of, read_html, hostile):
    results = results_of({hostile: {"restored": [30.0], hostile: [30.0], "blurry": [29.0]}})
    results = dataclasses.replace(results, quality={hostile: quality_of(set_aside=((hostile, hostile),))})
    rows = frame_rows(results)
    for html in (
        sequence_table(results, rows, {(hostile, 0)}),
        worst_lists(rows, {(hostile, 0)}),
        data_table(results),
    ):
        elements = read_html(html)
        assert "script" not in elements.counts and hostile in elements.text and elements.open == []
