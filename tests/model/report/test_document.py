"""The report is one file that needs nothing else, escapes what it shows, and stays small."""

import html.parser
import json
import math
import re

import pytest
import torch

from model.judge import JudgedFrame
from model.pictures import Album
from model.report import chart as report_chart
from model.report import viewer as report_viewer
from model.report.document import report_page
from model.results import Results
from model.scores import FrameScore

HOSTILE = "<script>alert('x')</script>&\"$title"
METHODS = ("restored", HOSTILE, "spike_only", "blurry")


def made(
    frames: int = 3, sequences: tuple[str, ...] = ("a", HOSTILE), psnr: float | None = 30.0
) -> tuple[Results, Album]:
    """Results of `sequences` of `frames` frames; restored is the best by 3 dB."""
    scores, album = [], Album(4, frozenset((name, 1) for name in sequences))
    for name in sequences:
        for i in range(frames):
            mine = [
                FrameScore(name, f"{i:06d}", i, m, (psnr or 0) + (3 if m == "restored" else 0) + i, 0.8)
                for m in (METHODS if psnr is not None else ())
            ]
            scores += mine
            images = {
                m: torch.full((3, 12, 16), 40, dtype=torch.uint8) for m in (*METHODS, "sharp", "spikes")
            }
            album.offer(
                JudgedFrame(sequence=name, frame=f"{i:06d}", index=i, images=images, scores=tuple(mine))
            )
    network = {
        "checkpoint": f"runs/{HOSTILE}.safetensors",
        "step": 12000,
        "digest": "sha256:1",
        "averaged_weights": True,
        "trained_on": {"fingerprint": "abc"},
        "config": {"note": HOSTILE, "lr": 0.0002},
    }
    provenance = {
        "store": {"path": "x.zarr", "name": HOSTILE, "fingerprint": "f00d"},
        "networks": {"restored": network, HOSTILE: network},
        "settings": {"split": "test"},
        "versions": {"torch": "2.13"},
    }
    results = Results(
        split="test",
        methods=METHODS,
        frames=dict.fromkeys(sequences, frames),
        scores=tuple(scores),
        provenance=provenance,
    )
    return results, album


class Elements(html.parser.HTMLParser):
    """Counts elements, and collects what would be loaded from elsewhere and tags left open."""

    VOID = ("meta", "link", "img", "br", "line", "path")

    def __init__(self, page: str) -> None:
        super().__init__()
        self.counts: dict[str, int] = {}
        self.external: list[str] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.counts[tag] = self.counts.get(tag, 0) + 1
        for name, value in attributes:
            if name in ("src", "href", "action", "srcset") and not (value or "").startswith("data:"):
                self.external.append(f"{tag} {name}={value}")
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("script", "style"):
            self.text += data


def test_the_page_is_whole_and_loads_nothing():
    page = report_page(*made())
    elements = Elements(page)
    assert elements.external == [] and elements.open == []
    assert "default-src 'none'" in page
    assert not re.search(r"https?://|@import|url\(", page)


def test_everything_that_came_from_outside_is_escaped():
    page = report_page(*made())
    elements = Elements(page)
    assert elements.counts["script"] == 2  # the page's own: data and code
    assert "<script>alert" not in page
    assert HOSTILE in elements.text
    data = re.search(r'id="chart-data">(.*?)</script>', page).group(1)
    assert json.loads(data)["lines"][1]["label"] == HOSTILE


def test_numbers_stand_beside_their_protocol():
    text = Elements(report_page(*made())).text
    assert text.count("rgb8-all") >= 4
    assert "34.00" in text and "+3.00" in text and "6 of 6 frames" in text


def test_pictures_appear_once_each():
    page = report_page(*made())
    # Two middle frames and two worst ones (frame 0), six pictures each.
    assert Elements(page).counts["img"] == 4 * 6 + 2
    assert page.count('class="card"') == 4


def test_a_frame_that_is_both_middle_and_worst_is_shown_once():
    results, album = made(frames=2)
    album.worst[:] = album.middle
    assert report_page(results, album).count('class="card"') == 2


def test_pictures_that_do_not_fit_are_left_out_and_counted(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(report_viewer, "MAX_PICTURE_BYTES", 2500)
    page = report_page(*made())
    assert 0 < page.count('class="card"') < 4
    assert re.search(r"[123] pictured frames were left out", page)


def test_full_hd_frames_stay_under_twenty_megabytes():
    results, album = made(sequences=tuple("abcdefgh"))
    noise = torch.randint(0, 256, (3, 1080, 1920), dtype=torch.uint8)
    for frame in (*album.middle, *album.worst)[:3]:
        frame.images.update(dict.fromkeys(frame.images, noise))
    assert len(report_page(results, album)) < 20_000_000


def test_a_page_without_scores_or_pictures_can_be_read():
    results, _ = made(psnr=None)
    text = Elements(report_page(results, Album(1, frozenset()))).text
    assert "No frames to show" in text and "No frame has a finite PSNR" in text
    assert "6 of 6 frames have no sharp frame" in text
    assert not re.search(r"\bnan\b", text.lower())


def test_infinite_psnr_is_shown_as_such_and_breaks_the_line():
    results, album = made(psnr=math.inf)
    page = report_page(results, album)
    assert "∞" in page and "No frame has a finite PSNR" in page
    assert "Infinity" not in page and "NaN" not in page.partition("chart-data")[2].partition("</script>")[0]


def test_long_tests_are_plotted_with_a_bounded_number_of_points(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(report_chart, "MAX_POINTS", 4)
    results, _ = made(frames=5, sequences=("a", "b"))
    plot = report_chart.plot_of(results)
    assert plot.frames_per_point == 3
    assert plot.names == (
        "a / 000000",
        "a / 000003",
        "b / 000000",
        "b / 000003",
    )  # a point never spans sequences
    assert plot.lines[-1][2] == (
        34.0,
        36.5,
        34.0,
        36.5,
    )  # restored, on top: means of 33, 34, 35 and of 36, 37
    assert plot.edges == ((0, "a"), (2, "b"))
    assert "mean of 3 frames" in report_chart.chart(plot)


@pytest.mark.parametrize(("low", "high"), [(21.3, 21.3), (20, 25), (19.99, 48.2), (-3, 3), (0.2, 110)])
def test_ticks_are_few_and_enclose_the_values(low, high):
    ticks = report_chart._ticks(low, high)
    assert ticks[0] <= low and ticks[-1] >= high
    assert 2 <= len(ticks) <= 7
