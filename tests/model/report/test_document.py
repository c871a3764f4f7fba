"""The report is one file that needs nothing else, escapes what it shows, and stays small."""

import json
import math
import re

import pytest

from model.evaluation.pictures import Album
from model.report import document
from model.report.document import report_page


def test_the_page_is_whole_and_loads_nothing(made, read_html):
    page = report_page(*made())
    elements = read_html(page)
    assert elements.external == [] and elements.open == []
    assert "default-src 'none'" in page
    assert not re.search(r"https?://|@import|url\((?!#)", page)


def test_everything_that_came_from_outside_is_escaped(made, read_html, hostile):
    page = report_page(*made())
    elements = read_html(page)
    assert elements.counts["script"] == 4  # the page's own: three of data, one of code
    assert "<script>alert" not in page
    assert hostile in elements.text
    plots = json.loads(re.search(r'id="plots-data">(.*?)</script>', page)[1])
    assert plots["all"]["lines"][1]["label"] == hostile
    pictures = json.loads(re.search(r'id="pictures-data">(.*?)</script>', page)[1])
    assert {picture["sequence"] for picture in pictures} == {"a", hostile}


def test_numbers_stand_beside_their_protocol(made, read_html):
    text = read_html(report_page(*made())).text
    assert text.count("rgb8-all") >= 4
    assert "34.00" in text and "+3.00" in text and "6 of 6 frames" in text


def test_links_to_frames_are_to_frames_that_are_pictured(made):
    page = report_page(*made())
    pictures = json.loads(re.search(r'id="pictures-data">(.*?)</script>', page)[1])
    there = {(picture["sequence"], picture["index"]) for picture in pictures}
    linked = re.findall(r'<button class="link" data-sequence="(\w+)" data-index="(\d)"', page)
    assert linked and {(name, int(index)) for name, index in linked} <= there


def test_each_of_several_sequences_has_a_plot_of_its_own(made):
    assert re.findall(r'data-plot="(\w+)"', report_page(*made())) == ["all", "s0", "s1"]
    assert re.findall(r'data-plot="(\w+)"', report_page(*made(sequences=("a",)))) == ["all"]


def test_pictures_take_what_the_rest_leaves(made, monkeypatch: pytest.MonkeyPatch):
    results, album = made()
    whole = report_page(results, album)
    size = len(re.search(r'id="pictures-data">(.*?)</script>', whole)[1])
    monkeypatch.setattr(document, "MAX_PAGE_BYTES", len(whole) - size // 2)
    smaller = report_page(results, album)
    assert len(smaller) < len(whole) - size // 4
    monkeypatch.setattr(document, "MAX_PAGE_BYTES", 0)
    assert "6 pictured frames left out to keep this page small" in report_page(results, album)


def test_a_page_without_scores_or_pictures_can_be_read(made, read_html):
    results, _ = made(psnr=None)
    text = read_html(report_page(results, Album([], 1))).text
    assert "No frames to show" in text and "No frame has a finite PSNR" in text
    assert "6 of 6 frames are restored, but not scored" in text
    assert not re.search(r"\bnan\b", text.lower())


def test_infinite_psnr_is_shown_as_such_and_is_no_invalid_json(made):
    page = report_page(*made(psnr=math.inf))
    assert "∞" in page and "No frame has a finite PSNR" in page
    for data in re.findall(r'<script type="application/json"[^>]*>(.*?)</script>', page):
        assert "Infinity" not in data and "NaN" not in data
