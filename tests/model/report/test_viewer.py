"""The slider's frames: which are shown, with which pictures, and how many fit."""

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from model.evaluation.pictures import Album
from model.report import viewer as report_viewer
from model.report.viewer import viewer


def cards_of(html: str) -> list[str]:
    return re.findall(r'<button class="card".*?</button>', html, re.DOTALL)


def names_of(html: str) -> list[str]:
    return re.findall(r'data-name="([^"]*)"', html)


def test_middle_and_worst_frames_are_shown_under_their_titles(made, read_html):
    html, dropped = viewer(*made(sequences=("a", "b")))
    assert dropped == 0 and read_html(html).open == []
    middle, worst = html.split("<h3>")[1:]
    assert middle.startswith("Middle of a sequence") and names_of(middle) == ["a / 000001", "b / 000001"]
    assert worst.startswith("Worst frame of a sequence") and names_of(worst) == ["a / 000000", "b / 000000"]


def test_a_frame_that_is_both_middle_and_worst_is_shown_once(made):
    results, album = made(frames=2)
    album.worst[:] = album.middle
    html, dropped = viewer(results, album)
    assert (len(cards_of(html)), dropped) == (2, 0) and "Worst frame" not in html


def test_every_picture_is_there_once_and_two_are_seen(made, read_html):
    html, _ = viewer(*made(sequences=("a",)))
    assert read_html(html).counts["img"] == 2 * 6 + 2  # two frames of six pictures, and the slider's own two
    card = cards_of(html)[0]
    assert re.findall(r'data-method="(\w+)"', card) == ["blurry", "restored", "sharp", "spikes", "spike_only"]
    assert re.findall(r'data-method="(\w+)"[^>]* hidden>', card) == ["sharp", "spikes", "spike_only"]
    assert 'data-width="16" data-height="12"' in card


def test_the_pictures_are_the_frames(made):
    results, album = made(sequences=("a",))
    rng = np.random.default_rng(0)
    for name, image in album.middle[0].images.items():
        image.numpy()[:] = rng.integers(0, 256, image.shape, np.uint8) if name == "restored" else 7
    card = cards_of(viewer(results, album)[0])[0]
    found = re.search(r'data-method="restored"[^>]*src="data:image/png;base64,([^"]*)"', card)[1]
    pixels = np.array(Image.open(io.BytesIO(base64.b64decode(found)))).transpose(2, 0, 1)
    np.testing.assert_array_equal(pixels, album.middle[0].images["restored"].numpy())


def test_a_card_tells_its_scores_and_its_gain(made, read_html):
    card = cards_of(viewer(*made(sequences=("a",)))[0])[0]
    text = read_html(card).text
    assert text == "a / 00000134.00 dB, +3.00"  # frame 1: 30 + 1, and 3 more restored
    scores = re.search(r'data-scores="([^"]*)"', card)[1].split("|")
    assert scores[0] == "Restored 34.00 dB" and scores[-1] == "Blurry input 31.00 dB" and len(scores) == 4


def test_a_frame_without_a_sharp_one_is_shown_without_a_score(made, read_html):
    html, _ = viewer(*made(sequences=("a",), psnr=None))
    assert [read_html(card).text for card in cards_of(html)] == ["a / 000001not scored"]
    assert 'data-scores=""' in html


def test_without_frames_it_says_so(made):
    assert viewer(made()[0], Album(1, frozenset())) == ("<p>No frames to show.</p>", 0)


def test_frames_that_do_not_fit_are_left_out_and_counted(made, monkeypatch: pytest.MonkeyPatch):
    results, album = made(sequences=("a", "b"))
    first, second, *_ = cards_of(viewer(results, album)[0])
    for budget, shown in ((len(first) + len(second), 2), (len(first) + len(second) - 1, 1), (0, 0)):
        monkeypatch.setattr(report_viewer, "MAX_PICTURE_BYTES", budget)
        html, dropped = viewer(results, album)
        assert (len(cards_of(html)), dropped) == (shown, 4 - shown)


def test_names_are_escaped(made, read_html, hostile):
    elements = read_html(viewer(*made(sequences=(hostile,)))[0])
    assert "script" not in elements.counts and hostile in elements.text and elements.open == []
