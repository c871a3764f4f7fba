"""The text around the numbers: its parts fit each other."""

import re
import shutil
import subprocess
from string import Template

import pytest

from model.report.document import report_page
from model.report.marks import COLOURS
from model.report.page import PAGE, SCRIPT, STYLE


def names_in(html: str) -> tuple[set[str], set[str]]:
    """Classes and ids of a page."""
    classes = {name for text in re.findall(r'class="?([\w -]+)', html) for name in text.split()}
    return classes, set(re.findall(r'id="([\w-]+)"', html))


def test_every_part_stands_in_the_page_where_it_can_be_filled_in():
    assert Template(PAGE).is_valid()
    parts = {name: f"[{name}]" for name in Template(PAGE).get_identifiers()}
    assert {"title", "style", "script", "chart_data", "summary", "viewer", "chart", "sequences"} <= set(parts)
    page = Template(PAGE).substitute(parts)
    assert "$" not in page and all(text in page for text in parts.values())


def test_style_and_script_cannot_end_their_elements():
    assert "</" not in STYLE and "</script" not in SCRIPT.lower() and "<!--" not in SCRIPT


def test_every_colour_is_defined_in_light_and_in_dark():
    light, dark = STYLE.split("@media(prefers-color-scheme:dark)", 1)
    dark = dark[: dark.index("}}")]
    used = set(re.findall(r"var\((--[\w-]+)\)", STYLE)) | {f"--m{i}" for i in range(COLOURS)}
    for part in (light, dark):
        assert used <= set(re.findall(r"(--[\w-]+):", part))


def test_the_script_finds_everything_that_it_looks_for(made):
    page = report_page(*made()).partition("<script>")[0]
    classes, ids = names_in(page)
    selectors = re.findall(r'"([.#][a-z][\w.#-]*|img\.\w+)"', SCRIPT)
    assert len(selectors) > 12
    for selector in selectors:
        wanted_classes, wanted_ids = (set(re.findall(rf"{mark}([\w-]+)", selector)) for mark in (r"\.", "#"))
        assert wanted_classes <= classes and wanted_ids <= ids, selector
    assert set(re.findall(r'getElementById\("([\w-]+)"\)', SCRIPT)) <= ids
    for attribute in set(re.findall(r"(?:card|viewer|button)\.dataset\.(\w+)", SCRIPT)):
        assert f"data-{attribute}=" in page


def test_the_script_is_valid(tmp_path):
    node = shutil.which("node")
    if node is None:
        pytest.skip("no node to check JavaScript with")
    (tmp_path / "script.js").write_text(SCRIPT)
    done = subprocess.run([node, "--check", tmp_path / "script.js"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
