"""The tables of the report, cell by cell."""

import math
import re

from model.report.tables import sequence_table, summary_table


def test_the_summary_has_both_means_and_a_dot_on_a_common_scale(results_of, read_html):
    psnr = {
        "a": {"restored": [30.0, 32.0, 34.0], "x": [25.0, 25.0, 25.0], "blurry": [24.0, 24.0, 24.0]},
        "b": {"restored": [40.0], "x": [29.0], "blurry": [24.0]},
    }
    html = summary_table(results_of(psnr))
    elements = read_html(html)
    assert elements.open == []
    _, restored, x, blurry = elements.rows
    # Restored: (30 + 32 + 34 + 40) / 4 over frames, (32 + 40) / 2 over sequences; x: 104 / 4 and 54 / 2.
    assert restored == ["Restoredthe network under test", "", "34.00", "0.5000", "36.00", "0.5000", "4"]
    assert x == ["xfor comparison", "", "26.00", "0.5000", "27.00", "0.5000", "4"]
    assert blurry == ["Blurry inputwhat it was given", "", "24.00", "0.5000", "24.00", "0.5000", "4"]
    # From 24 to 34 dB: x is a fifth of the way.
    assert re.findall(r'<i style="left:([\d.]+)%', html) == ["100.0", "20.0", "0.0"]


def test_the_best_of_each_column_stands_out_and_equals_share_it(results_of):
    html = summary_table(results_of({"a": {"restored": [30.0], "x": [31.0], "blurry": [29.0]}}))
    assert (
        re.findall(r"<td class=best>([^<]*)</td>", html)
        == ["0.5000"] * 2 + ["31.00", "0.5000"] * 2 + ["0.5000"] * 2
    )


def test_a_method_without_a_finite_mean_has_no_dot(results_of, read_html):
    html = summary_table(results_of({"a": {"restored": [math.inf], "blurry": [30.0]}}))
    assert re.findall(r'<i style="left:([\d.]+)%', html) == ["0.0"]
    assert read_html(html).rows[1][2] == "∞"
    html = summary_table(results_of({"a": {"restored": [], "blurry": []}}))
    assert "<i " not in html and read_html(html).rows[1][1:] == ["", "–", "–", "–", "–", "0"]


def test_each_sequence_tells_its_frames_and_what_was_gained(results_of, read_html):
    psnr = {
        "up": {"restored": [31.0, 33.0], "blurry": [30.0, 30.0]},
        "down": {"restored": [28.5], "blurry": [30.0]},
        "perfect": {"restored": [math.inf], "blurry": [30.0]},
    }
    html = sequence_table(results_of(psnr))
    head, *rows = read_html(html).rows
    assert head == [
        "sequence",
        "frames",
        "RestoredPSNR / SSIM",
        "Blurry inputPSNR / SSIM",
        "gain overblurry (dB)",
    ]
    assert rows == [
        ["up", "2", "32.00 / 0.5000", "30.00 / 0.5000", "+2.00"],
        ["down", "1", "28.50 / 0.5000", "30.00 / 0.5000", "−1.50"],
        ["perfect", "1", "∞ / 0.5000", "30.00 / 0.5000", "–"],
    ]
    assert '<td class="gain">+2.00' in html and '<td class="loss">−1.50' in html and "<td>–</td>" in html
    assert re.findall(r"<td class=best>(\S+)", html) == ["32.00", "30.00", "∞"]


def test_names_are_escaped(results_of, read_html, hostile):
    results = results_of({hostile: {"restored": [30.0], hostile: [30.0], "blurry": [29.0]}})
    for html in (summary_table(results), sequence_table(results)):
        elements = read_html(html)
        assert "script" not in elements.counts and hostile in elements.text and elements.open == []
