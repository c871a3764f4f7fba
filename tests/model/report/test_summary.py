"""Headline numbers, notes, and protocol tables, cell by cell."""

import dataclasses
import math
import re

from model.evaluation.scores import FrameScore
from model.report.frames import frame_rows
from model.report.summary import matrix, notes, protocol_table, protocol_tables, tiles

TWO = {
    "a": {"restored": [30.0, 32.0, 34.0], "x": [25.0, 25.0, 25.0], "blurry": [24.0, 24.0, 36.0]},
    "b": {"restored": [40.0], "x": [29.0], "blurry": [24.0]},
}


def with_another_protocol(results, averaging="sequences", metrics=("lpips", "detail")):
    """The results, scored by one more protocol that has other metrics."""
    other = dataclasses.replace(
        results.protocols[0], name="other", text="something <else>", metrics=metrics, averaging=averaging
    )
    values = {"restored": 0.2, "x": 0.1, "blurry": 0.4}
    more = tuple(
        dataclasses.replace(s, protocol="other", values=Values(dict.fromkeys(metrics, values[s.method])))
        for s in results.scores
    )
    return dataclasses.replace(
        results, protocols=(*results.protocols, other), scores=(*results.scores, *more)
    )


class Values(dict):
    """Metrics, and a PSNR that is not among them."""

    def __missing__(self, name: str) -> float:
        assert name == "psnr"
        return math.nan


def test_tiles_tell_both_metrics_the_gain_and_what_was_scored(results_of, read_html):
    results = results_of(TWO)
    text = read_html(tiles(results, frame_rows(results))).text
    # Means over four frames: 34 restored, 27 blurry; the third frame lost 2 dB.
    for part in (
        "34.00dB",
        "PSNR, rgb8-all",
        "0.5000",
        "+7.00dB",
        "better in 3 of 4 frames",
        "4frames",
        "in 2 sequences",
    ):
        assert part in text


def test_notes_name_doubtful_data_unscored_identical_and_dropped(results_of, quality_of, read_html):
    results = results_of({"a": {"restored": [30.0, math.inf], "blurry": [24.0, 24.0]}})
    assert notes(results_of(TWO), 0) == ""
    quality = {"a": quality_of(set_aside=(("log:3", "no row"),)), "b": quality_of()}
    results = dataclasses.replace(results, frames={"a": 5}, quality=quality)
    text = read_html(notes(results, 2)).text
    for part in (
        "1 sequence gives cause for doubt, see Data: a.",
        "3 of 5 frames have no sharp frame",
        "Restored 1.",
        "2 pictured frames left",
    ):
        assert part in text


def test_a_protocol_has_both_means_and_a_dot_on_a_common_scale(results_of, read_html):
    results = results_of(TWO)
    html = protocol_table(results, results.protocols[0])
    elements = read_html(html)
    assert elements.open == []
    rows = {row[0]: row[1:] for row in elements.rows if len(row) > 5}
    # Restored: (30 + 32 + 34 + 40) / 4 over frames, (32 + 40) / 2 over sequences; x: 104 / 4 and 54 / 2.
    assert rows["Restoredthe network under test"] == ["", "", "34.00", "0.5000", "36.00", "0.5000", "4"]
    assert rows["xfor comparison"] == ["", "−8.00", "26.00", "0.5000", "27.00", "0.5000", "4"]
    assert rows["Blurry inputwhat it was given"][:3] == ["", "−7.00", "27.00"]
    # From 26 to 34 dB: blurry is an eighth of the way.
    assert re.findall(r'<i style="left:([\d.]+)%', html) == ["100.0", "0.0", "12.5"]
    assert re.search(r'class="own"[^>]*>mean over frames', html)


def test_the_best_of_each_column_stands_out_and_a_better_method_is_red(results_of):
    results = results_of({"a": {"restored": [30.0], "x": [31.0], "blurry": [29.0]}})
    html = protocol_table(results, results.protocols[0])
    assert re.findall(r'<td class="best">([^<]*)</td>', html) == [
        *("0.5000", "0.5000"),
        *("31.00", "0.5000", "31.00", "0.5000"),
        *("0.5000", "0.5000"),
    ]
    assert re.findall(r'<span class="loss">([^<]*)', html) == ["+1.00"]


def test_a_row_that_lacks_frames_is_compared_over_those_that_both_have(results_of, read_html):
    shift = "spikes=shift:+8"
    results = results_of({"a": {"restored": [40.0, 30.0], shift: [38.0], "blurry": [20.0, 20.0]}})
    results = dataclasses.replace(results, ablated=(shift,))
    rows = {row[0]: row for row in read_html(protocol_table(results, results.protocols[0])).rows if row}
    assert next(row for name, row in rows.items() if name.startswith(shift))[2] == "−2.00"  # not 38 - 35


def test_a_method_without_a_finite_mean_has_no_dot(results_of, read_html):
    results = results_of({"a": {"restored": [math.inf], "blurry": [30.0]}})
    html = protocol_table(results, results.protocols[0])
    assert re.findall(r'<i style="left:([\d.]+)%', html) == ["0.0"] and "∞" in read_html(html).text
    results = results_of({"a": {"restored": [], "blurry": []}})
    html = protocol_table(results, results.protocols[0])
    assert "<i " not in html
    assert read_html(html).rows[2][1:] == ["", "", "–", "–", "–", "–", "0"]


def test_several_protocols_have_a_common_table_and_one_each(results_of, read_html):
    results = with_another_protocol(results_of(TWO))
    html = protocol_tables(results)
    elements = read_html(html)
    assert elements.open == [] and "<else>" not in html
    head, names, restored = elements.rows[:3]
    assert head == ["", "rgb8-all", "other"]
    assert names == ["method", "PSNR (dB)", "SSIM", "LPIPS", "detail"]
    assert restored[1:] == ["34.00", "0.5000", "0.2000", "0.2"]
    assert html.count("<details") == html.count('class="protocol"') == 2 and html.count(" open") == 1
    assert "Something &lt;else&gt;." in html
    # The lower LPIPS is the better one; of an unknown metric none is.
    assert re.findall(r'class="[^"]*best[^"]*">([\d.]+)', matrix(results)) == [
        "34.00",
        "0.5000",
        "0.5000",
        "0.1000",
        "0.5000",
    ]


def test_a_first_protocol_without_psnr_or_sharp_frames_is_told_all_the_same(results_of, read_html):
    results = with_another_protocol(results_of(TWO))
    only = results.protocols[1]
    scores = tuple(
        FrameScore(s.sequence, s.frame, s.index, s.method, "other", s.values)
        for s in results.scores
        if s.protocol == "other"
    )
    results = dataclasses.replace(results, protocols=(only,), scores=scores)
    text = read_html(tiles(results, [])).text
    assert "0.2000" in text and "LPIPS, other" in text and "over the blurry" not in text
    assert read_html(protocol_tables(results)).open == []


def test_methods_stand_in_groups(results_of):
    results = results_of(
        {"a": {name: [30.0] for name in ("restored", "x", "spikes=zero", "threshold 2=", "blurry")}}
    )
    html = protocol_table(results, results.protocols[0])
    assert re.findall(r'scope="rowgroup">([^<]*)', html) == [
        "Other networks",
        "Altered input",
        "Other spike thresholds",
        "Baselines",
    ]


def test_names_are_escaped(results_of, read_html, hostile):
    results = results_of({hostile: {"restored": [30.0], hostile: [30.0], "blurry": [29.0]}})
    elements = read_html(protocol_tables(results))
    assert "script" not in elements.counts and hostile in elements.text and elements.open == []
