"""The report is one file that needs nothing else, escapes what it shows, and stays small."""

import json
import math
import re

import pytest
import torch

from model.evaluation.pictures import Album
from model.report import viewer as report_viewer
from model.report.document import report_page


def test_the_page_is_whole_and_loads_nothing(made, read_html):
    page = report_page(*made())
    elements = read_html(page)
    assert elements.external == [] and elements.open == []
    assert "default-src 'none'" in page
    assert not re.search(r"https?://|@import|url\(", page)


def test_everything_that_came_from_outside_is_escaped(made, read_html, hostile):
    page = report_page(*made())
    elements = read_html(page)
    assert elements.counts["script"] == 2  # the page's own: data and code
    assert "<script>alert" not in page
    assert hostile in elements.text
    data = re.search(r'id="chart-data">(.*?)</script>', page).group(1)
    assert json.loads(data)["lines"][1]["label"] == hostile


def test_numbers_stand_beside_their_protocol(made, read_html):
    text = read_html(report_page(*made())).text
    assert text.count("rgb8-all") >= 4
    assert "34.00" in text and "+3.00" in text and "6 of 6 frames" in text


def test_pictures_that_do_not_fit_are_left_out_and_counted(made, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(report_viewer, "MAX_PICTURE_BYTES", 2500)
    page = report_page(*made())
    assert 0 < page.count('class="card"') < 4
    assert re.search(r"[123] pictured frames were left out", page)


def test_full_hd_frames_stay_under_twenty_megabytes(made):
    results, album = made(sequences=tuple("abcdefgh"))
    noise = torch.randint(0, 256, (3, 1080, 1920), dtype=torch.uint8)
    for frame in (*album.middle, *album.worst)[:3]:
        frame.images.update(dict.fromkeys(frame.images, noise))
    assert len(report_page(results, album)) < 20_000_000


def test_a_page_without_scores_or_pictures_can_be_read(made, read_html):
    results, _ = made(psnr=None)
    text = read_html(report_page(results, Album(1, frozenset()))).text
    assert "No frames to show" in text and "No frame has a finite PSNR" in text
    assert "6 of 6 frames have no sharp frame" in text
    assert not re.search(r"\bnan\b", text.lower())


def test_infinite_psnr_is_shown_as_such_and_is_no_invalid_json(made):
    results, album = made(psnr=math.inf)
    page = report_page(results, album)
    assert "∞" in page and "No frame has a finite PSNR" in page
    assert "Infinity" not in page and "NaN" not in page.partition("chart-data")[2].partition("</script>")[0]
