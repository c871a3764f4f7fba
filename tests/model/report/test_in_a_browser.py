"""The report in a browser: it shows what it should, follows hands and keys, and is never at a loss for room."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from model.evaluation.judge import JudgedFrame
from model.evaluation.pictures import Album, Thumbnail
from model.report.document import report_page
from tests.browser import Browser, find_browser

RED, GREEN, BLUE = (200, 0, 0), (0, 150, 0), (0, 0, 200)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    path = find_browser()
    if path is None:
        pytest.skip("no Chromium to look at the report with")
    started = Browser(path, tmp_path_factory.mktemp("browser"))
    yield started
    started.close()


def painted(height: int, width: int) -> dict[str, torch.Tensor]:
    """Pictures of one colour; restored is sharp but for a square that is 32 levels off in the upper left quarter."""
    colours = {"blurry": RED, "restored": GREEN, "sharp": GREEN, "spikes": (90, 90, 90), "spike_only": BLUE}
    images = {
        name: torch.tensor(colour, dtype=torch.uint8)[:, None, None].repeat(1, height, width)
        for name, colour in colours.items()
    }
    images["restored"][:, : height // 2, : width // 2] += 32
    return images


def page_of(made, path: Path, height: int, width: int, frames: int = 4) -> Path:
    """A report of two sequences of painted frames; the first frame of the second one is not scored."""
    results, _ = made(frames=frames, sequences=("first", "second"))
    scores = tuple(score for score in results.scores if (score.sequence, score.index) != ("second", 0))
    results = dataclasses.replace(results, scores=scores)
    album = Album([("first", frames), ("second", frames)], 4)
    for sequence in ("first", "second"):
        for index in range(frames):
            scores = tuple(s for s in results.scores if (s.sequence, s.index) == (sequence, index))
            images = painted(height, width)
            if not scores:
                del images["sharp"]
            album.offer(
                JudgedFrame(
                    sequence=sequence, frame=f"{index:06d}", index=index, images=images, scores=scores
                )
            )
    path.write_text(report_page(results, album))
    return path


@pytest.fixture(scope="module")
def small(made, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return page_of(made, tmp_path_factory.mktemp("small") / "report.html", 48, 64)


@pytest.fixture(scope="module")
def large(made, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return page_of(made, tmp_path_factory.mktemp("large") / "report.html", 540, 960, frames=2)


def colour_at(browser: Browser, selector: str, across: float, down: float) -> tuple[int, ...]:
    """What is seen at a part of an element's width and height."""
    left, top, width, height = browser.box(selector)
    seen = browser.screenshot()
    return tuple(int(v) for v in seen[int(top + down * height), int(left + across * width)])


def is_close(colour: tuple[int, ...], wanted: tuple[int, ...], by: int = 3) -> bool:
    return all(abs(a - b) <= by for a, b in zip(colour, wanted, strict=True))


def middle_of(browser: Browser, selector: str) -> tuple[float, float]:
    left, top, width, height = browser.box(selector)
    return left + width / 2, top + height / 2


def transforms(browser: Browser) -> list[str]:
    return browser.evaluate("[...document.querySelectorAll('.world')].map((w) => w.style.transform)")


def caption(browser: Browser) -> str:
    return browser.evaluate("document.querySelector('#caption').textContent")


@pytest.mark.parametrize("dark", [False, True])
def test_loads_without_a_complaint_in_the_colours_that_are_asked_for(browser, small, dark):
    browser.open(small, dark=dark)
    assert browser.complaints == []
    assert (browser.screenshot().mean() < 100) == dark


def test_the_line_cuts_between_any_two_pictures_and_follows_mouse_and_keys(browser, small):
    browser.open(small)
    browser.reveal("#look")
    assert is_close(colour_at(browser, ".window", 0.4, 0.8), RED)
    assert is_close(colour_at(browser, ".window", 0.6, 0.8), GREEN)
    left, top, width, height = browser.box(".window")
    browser.drag((left + width / 2, top + height / 2), (left + 0.2 * width, top + height / 2))
    assert is_close(colour_at(browser, ".window", 0.4, 0.8), GREEN)
    browser.evaluate("document.querySelector('.handle').focus()")
    browser.key("End")
    assert is_close(colour_at(browser, ".window", 0.9, 0.8), RED)
    browser.choose("#left", "spike_only")
    assert is_close(colour_at(browser, ".window", 0.9, 0.8), BLUE)
    assert browser.complaints == []


def test_panels_zoom_and_move_together(browser, small):
    browser.open(small)
    browser.reveal("#look")
    browser.click("[data-mode=grid]")
    whole = transforms(browser)
    assert len(whole) == 4 and len(set(whole)) == 1  # blurry, restored, sharp and an error map
    x, y = middle_of(browser, ".window")
    browser.mouse("mouseWheel", x, y, deltaX=0, deltaY=-400)
    browser.settle()
    assert transforms(browser) == whole  # the page scrolls, as long as nobody is at the pictures
    browser.reveal("#look")
    browser.evaluate("document.querySelector('#stage').focus({preventScroll: true})")
    x, y = middle_of(browser, ".window")
    browser.mouse("mouseWheel", x, y, deltaX=0, deltaY=-400)
    browser.settle()
    zoomed = transforms(browser)
    assert zoomed != whole and len(set(zoomed)) == 1
    browser.drag((x, y), (x - 80, y - 40))
    moved = transforms(browser)
    assert moved != zoomed and len(set(moved)) == 1
    browser.key("0", "0")
    assert transforms(browser) == whole
    browser.key("+", "+")
    browser.key("ArrowRight")
    assert len(set(transforms(browser))) == 1 and transforms(browser) != whole
    rendering = "getComputedStyle(document.querySelector('.world img')).imageRendering"
    assert browser.evaluate(rendering) == "pixelated"


def test_two_fingers_zoom_on_a_touch_screen(browser, small):
    browser.open(small, width=390, height=844, touch=True)
    browser.reveal("#look")
    x, y = middle_of(browser, ".window")
    before = transforms(browser)
    browser.touch("touchStart", (x - 20, y), (x + 20, y))
    browser.touch("touchMove", (x - 60, y), (x + 60, y))
    browser.touch("touchEnd")
    browser.settle()
    assert transforms(browser) != before
    assert browser.evaluate("document.querySelector('#stage').classList.contains('zoomed')")


def test_the_error_map_shows_where_and_how_much(browser, small):
    browser.open(small)
    browser.reveal("#look")
    browser.click("[data-mode=grid]")
    for chip in ("blurry", "restored", "sharp"):
        browser.click(f"[data-chip={chip}]")
    assert browser.evaluate("document.querySelectorAll('.layer.error').length") == 1
    assert not browser.evaluate("document.querySelector('#scale').hidden")
    assert is_close(colour_at(browser, ".window", 0.75, 0.75), (0, 0, 4), by=6)  # no error: the dark end
    assert is_close(
        colour_at(browser, ".window", 0.3, 0.3), (252, 253, 191), by=6
    )  # 32 of 32 levels: the bright end
    browser.choose("#most", "64")
    assert is_close(colour_at(browser, ".window", 0.3, 0.3), (183, 55, 121), by=8)  # 32 of 64: the middle


def test_places_of_large_frames_keep_every_pixel_and_can_be_gone_to(browser, large):
    browser.open(large)
    browser.reveal("#look")
    marks = "document.querySelectorAll('.mark').length"
    assert browser.evaluate(marks) == 2  # the largest error, and the largest gain
    browser.click("#places button")
    assert browser.evaluate(marks) == 0
    patch = "document.querySelectorAll('.layer .world img')[1].getBoundingClientRect()"
    _, top, _, height = browser.box(".window")
    inside = browser.evaluate(f"(b => [b.left, b.top, b.width, b.height])({patch})")
    # The place fills the height of the panel, in its middle.
    assert abs(inside[3] - height) < 2 and abs(inside[1] - top) < 2
    assert browser.complaints == []


def test_frames_are_picked_in_the_filmstrip_the_plots_the_lists_and_by_key(browser, small):
    browser.open(small)
    assert caption(browser).startswith("first / 000002")
    browser.click(".thumb[data-index='3']")
    assert caption(browser).startswith("first / 000003") and "+3.00 over blurry" in caption(browser)
    browser.choose("#sequence", "second")
    assert caption(browser).startswith("second / 000002")
    browser.evaluate("document.querySelector('#stage').focus()")
    browser.key(",", ",")
    assert caption(browser).startswith("second / 000001")
    browser.click("button.link[data-sequence=first]")
    assert caption(browser).startswith("first / 000000")
    browser.reveal("[data-plot=all]")
    left, top, width, height = browser.box("[data-plot=all]")
    x, y = left + width * 7.5 / 8, top + height / 2  # the last of two sequences of four frames
    browser.mouse("mouseMoved", x, y)
    assert "second / 000003" in browser.evaluate("document.querySelector('[data-plot=all] .tip').textContent")
    browser.drag((x, y), (x, y))
    assert caption(browser).startswith("second / 000003")
    assert browser.evaluate("document.querySelector('#charts h3').textContent") == "second"
    browser.evaluate("document.querySelector('circle.pictured').dispatchEvent(new MouseEvent('click'))")
    assert caption(browser).startswith("first / 000000")
    assert browser.complaints == []


def test_a_frame_without_a_score_is_shown_without_one(browser, small):
    browser.open(small)
    browser.choose("#sequence", "second")
    browser.click(".thumb[data-index='0']")
    assert caption(browser) == "second / 000000not scored"
    assert browser.evaluate("[...document.querySelectorAll('.tag')].map((tag) => tag.textContent)") == [
        "Blurry input",
        "Restored",
    ]
    browser.click("[data-mode=grid]")
    assert len(transforms(browser)) == 2 and browser.complaints == []


def test_tables_sort_by_the_column_that_is_pressed(browser, small):
    browser.open(small)
    names = "[...document.querySelectorAll('#sequences tbody th')].map((cell) => cell.firstChild.textContent)"
    assert browser.evaluate(names) == ["first", "second"]
    browser.click("#sequences .sort")
    browser.click("#sequences .sort")
    assert browser.evaluate(names) == ["second", "first"]
    assert (
        browser.evaluate("document.querySelector('#sequences th').getAttribute('aria-sort')") == "descending"
    )


@pytest.mark.parametrize("mode", ["slider", "grid"])
def test_a_phone_shows_it_without_scrolling_sideways(browser, large, mode):
    browser.open(large, width=390, height=844, touch=True)
    browser.click(f"[data-mode={mode}]")
    assert browser.evaluate("document.documentElement.scrollWidth") == 390
    left, _, width, _ = browser.box(".window")
    assert left >= 0 and left + width <= 390 and width > 300


def test_everything_that_can_be_operated_has_a_name_and_takes_the_focus(browser, small):
    browser.open(small)
    browser.click("[data-mode=grid]")
    nameless = browser.evaluate(
        "[...document.querySelectorAll('button, select, [tabindex=\"0\"], a')].filter((e) => e.offsetParent)"
        ".filter((e) => !(e.ariaLabel || e.textContent.trim() || e.closest('label')?.textContent.trim()))"
        ".map((e) => e.outerHTML)"
    )
    assert nameless == []
    browser.evaluate("document.activeElement.blur()")
    focused = set()
    for _ in range(30):
        browser.call("Input.dispatchKeyEvent", type="keyDown", key="Tab", windowsVirtualKeyCode=9)
        focused.add(browser.evaluate("document.activeElement.id || document.activeElement.className"))
    assert {"stage", "larger", "sequence", "next", "thumb"} <= focused


def many_frames(made, frames: int, honest: bool) -> str:
    """A report of 1,000 frames of 720p; unless it is to be honest, most of them have but a copied thumbnail."""
    names = tuple(f"sequence {i:02d}" for i in range(1000 // frames))
    results, _ = made(frames=frames, sequences=names, size=(2, 2))
    by_frame: dict[tuple[str, int], list] = {}
    for score in results.scores:
        by_frame.setdefault((score.sequence, score.index), []).append(score)
    album = Album([(name, frames) for name in names], 10)
    noise = np.random.default_rng(0).integers(0, 256, (3, 720, 1280), np.uint8)
    pictures = {
        "blurry": noise,
        "restored": noise // 2,
        "sharp": noise[:, ::-1],
        "spikes": noise,
        "spike_only": noise,
    }
    images = {name: torch.from_numpy(np.ascontiguousarray(image)) for name, image in pictures.items()}
    for (sequence, index), scores in by_frame.items():
        if honest or (index in (0, frames // 2) and int(sequence[-2:]) < 6):
            album.offer(
                JudgedFrame(
                    sequence=sequence, frame=f"{index:06d}", index=index, images=images, scores=tuple(scores)
                )
            )
        else:
            album.thumbnails[sequence].append(
                Thumbnail(f"{index:06d}", index, album.thumbnails[names[0]][0].jpeg)
            )
    return report_page(results, album)


def check_many_frames(browser: Browser, page: str, path: Path) -> None:
    """Small enough to be sent, and quick to open."""
    path.write_text(page)
    assert len(page.encode()) < 20_000_000
    assert browser.open(path) < 10
    assert browser.complaints == []
    assert browser.evaluate("document.querySelectorAll('.thumb').length") == 25
    assert browser.evaluate("document.querySelectorAll('#sequence option').length") == 40


def test_a_thousand_large_frames_of_noise_stay_small_and_open_quickly(browser, made, tmp_path):
    check_many_frames(browser, many_frames(made, 25, honest=False), tmp_path / "report.html")


@pytest.mark.slow
def test_a_thousand_large_frames_that_were_all_offered_stay_small(browser, made, tmp_path):
    check_many_frames(browser, many_frames(made, 25, honest=True), tmp_path / "report.html")
