"""The text around the numbers: its parts fit each other."""

import re
import shutil
import subprocess
from importlib.resources import files
from string import Template

import pytest

from model.report.assets import SCRIPTS, STYLES, script, style, template
from model.report.document import report_page
from model.report.marks import COLOURS


def test_every_file_of_the_page_is_used_and_belongs_to_the_package():
    there = {file.name for file in files("model.report").joinpath("page").iterdir()}
    assert there == {"page.html", *STYLES, *SCRIPTS}


def test_every_part_stands_in_the_page_where_it_can_be_filled_in():
    assert Template(template()).is_valid()
    parts = {name: f"[{name}]" for name in Template(template()).get_identifiers()}
    assert {"title", "style", "script", "pictures", "protocols", "chart", "sequences", "data"} <= set(parts)
    page = Template(template()).substitute(parts)
    assert "$" not in page and all(text in page for text in parts.values())


def test_style_and_script_cannot_end_their_elements():
    assert "</" not in style() and "</script" not in script().lower() and "<!--" not in script()


def test_every_colour_is_defined_in_light_and_in_dark():
    light, dark = style().split("@media (prefers-color-scheme: dark)", 1)
    dark = dark[: dark.index("}\n}")]
    used = set(re.findall(r"var\((--[\w-]+)\)", style())) | {f"--m{i}" for i in range(COLOURS)}
    for part in (light, dark):
        assert used <= set(re.findall(r"(--[\w-]+):", part))


def test_every_rule_of_the_style_is_for_something_on_the_page(made):
    page, code = report_page(*made()), script()
    found = {name for text in re.findall(r'class="?([\w -]+)', page) for name in text.split()}
    made_by_script = set(re.findall(r"[\w-]+", " ".join(re.findall(r'"([^"]*)"', code))))
    code_free = re.sub(r'"[^"]*"', "", style())
    ids = set(re.findall(r'id="([\w-]+)"', page))
    selectors = re.sub(r"\{[^{}]*\}", " ", code_free)
    # Classes that only some results have.
    sometimes = {"protocol", "starts", "doubt", "note", "lost"}
    for name in set(re.findall(r"\.([a-z][\w-]*)", selectors)):
        assert name in found | made_by_script | sometimes, name
    for name in set(re.findall(r"#([a-z][\w-]*)", selectors)):
        assert name in ids, name


def test_the_script_finds_everything_that_it_looks_for(made):
    page = report_page(*made()).partition("<script>")[0]
    ids = set(re.findall(r'id="([\w-]+)"', page))
    wanted = set(re.findall(r'byId\("([\w-]+)"\)', script())) | set(
        re.findall(r'readJson\("([\w-]+)"\)', script())
    )
    assert len(wanted) > 15 and wanted <= ids


def test_the_script_is_valid(tmp_path):
    node = shutil.which("node")
    if node is None:
        pytest.skip("no node to check JavaScript with")
    (tmp_path / "script.js").write_text(script())
    done = subprocess.run([node, "--check", tmp_path / "script.js"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("mode", ["light", "dark"])
def test_text_stands_out_from_what_is_behind_it(mode):
    """By the contrast ratio of WCAG 2, of which level AA asks for 4.5."""
    part = style().partition("@media (prefers-color-scheme: dark)")[mode == "dark" and 2]
    colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{3,6})\b", part.partition("}")[0]))
    for text, behind in (
        *((text, behind) for text in ("ink", "soft", "accent") for behind in ("card", "paper", "tint")),
        *(("good", "card"), ("bad", "card"), ("on-accent", "accent")),
    ):
        high, low = sorted((luminance(colours[text]), luminance(colours[behind])), reverse=True)
        assert (high + 0.05) / (low + 0.05) >= 4.5, (text, behind)


def luminance(colour: str) -> float:
    digits = colour[1:] if len(colour) == 7 else "".join(digit * 2 for digit in colour[1:])
    red, green, blue = (int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4))
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in (red, green, blue)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
