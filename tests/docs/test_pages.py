"""What the pages name is there: options, settings, links, pictures."""

import itertools
import re
import shlex
from pathlib import Path

import pytest
import typer
import yaml

from cli.main import app
from model.evaluation.perceptual import LPIPS
from model.evaluation.protocols import PROTOCOLS
from pipeline.config import build
from pipeline.manifest import Manifest
from tests.docs.pages import PAGES, REPOSITORY, all_commands, anchors, blocks, links, name_of, spans
from tests.docs.settings import is_key, is_setting

COMMANDS = typer.main.get_command(app).commands
OPTIONS = {
    name: {o for p in command.params for o in p.opts} | {"--help"} for name, command in COMMANDS.items()
}
OF_OTHERS = {
    *("--nproc-per-node", "--max-restarts", "--shutdown-timeout", "--signals-to-handle", "--version"),
    *("--no-deps", "--index-url"),
}
"""Options of torchrun and pip, and of `spk` without a command."""
WITH_NAMES = {"--compare", "--ablate", "--sweep"}
"""Options that take NAME=VALUE themselves."""
SETTING = re.compile(r"[a-z][a-z0-9_.]*=\S+")
MOST_BYTES = 300_000
each_page = pytest.mark.parametrize("page", PAGES, ids=name_of)


def words_of(span: str) -> list[str]:
    try:
        return shlex.split(span)
    except ValueError:
        return span.split()


def commands_and_spans() -> list[tuple[str, list[str]]]:
    """Where they are, and the words of all commands in blocks and in the prose."""
    in_blocks = [(str(one), list(one.words)) for one in all_commands()]
    return in_blocks + [
        (f"{name_of(page)}: `{span}`", words_of(span)) for page in PAGES for span in spans(page)
    ]


def test_every_option_is_there():
    unknown = []
    for where, words in commands_and_spans():
        known = set.union(*OPTIONS.values()) | OF_OTHERS
        if words[0] == "spk" and words[1:2] and words[1] in OPTIONS:
            known = OPTIONS[words[1]]
        options = [found[0] for word in words if (found := re.match(r"--[a-z][a-z-]*", word))]
        unknown += [where for option in options if option not in known]
    assert not unknown


def test_every_command_in_the_prose_is_there():
    named = {words[1] for _, words in commands_and_spans() if words[:1] == ["spk"] and len(words) > 1}
    assert not {name for name in named if re.fullmatch(r"[a-z]+", name)} - COMMANDS.keys()


def test_every_setting_is_there():
    texts = [
        (where, word.removeprefix("scenes."))
        for where, words in commands_and_spans()
        for before, word in itertools.pairwise(["", *words])
        if SETTING.fullmatch(word) and before not in WITH_NAMES
        if words[0] == "spk" or SETTING.fullmatch(words[0])
    ]
    assert len(texts) > 20
    assert not [where for where, text in texts if not is_setting(text)]


@each_page
def test_every_link_leads_somewhere(page):
    broken = []
    for link in links(page):
        path, _, anchor = link.partition("#")
        if re.match(r"[a-z]+:", link):
            continue
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert not broken


@each_page
def test_lines_are_short_enough_to_read(page):
    lines = page.read_text().splitlines()
    assert not [line for line in lines if len(line) > 120 and not line.startswith(("|", "!["))]


def test_every_page_and_picture_is_reached_from_the_readme():
    seen, todo = set(), [PAGES[0]]
    while todo:
        page = todo.pop()
        seen.add(page)
        targets = [
            (page.parent / link.partition("#")[0]).resolve() for link in links(page) if ":" not in link
        ]
        todo += [path for path in targets if path.suffix == ".md" and path not in seen and path in PAGES]
        seen |= {path for path in targets if path.is_file()}
    in_docs = {path for path in (REPOSITORY / "docs").rglob("*") if path.is_file()}
    assert not {name_of(path) for path in in_docs - seen}


def test_pictures_are_small():
    assert not [p.name for p in (REPOSITORY / "docs").iterdir() if p.stat().st_size > MOST_BYTES]


@pytest.mark.parametrize("block", [b for page in PAGES for b in blocks(page, "yaml")], ids=str)
def test_yaml_blocks_are_settings(block):
    values = yaml.safe_load(block.text)
    if {"layout", "splits"} <= values.keys():
        build(Manifest, values, str(block))
    else:
        assert not [key for key in keys_of(values) if not is_key(key)]


def keys_of(values: dict) -> list[str]:
    """Dotted paths of all that is set."""
    paths = []
    for key, value in values.items():
        paths += [f"{key}.{inner}" for inner in keys_of(value)] if isinstance(value, dict) else [key]
    return paths


@pytest.mark.parametrize(
    "path", sorted((REPOSITORY / "data_manifests").glob("*.yaml")), ids=lambda path: path.stem
)
def test_every_manifest_is_in_the_page_of_formats(path: Path):
    assert path.stem in spans(REPOSITORY / "docs" / "formats.md")


def test_every_protocol_is_in_the_page_of_protocols():
    named = set(spans(REPOSITORY / "docs" / "protocols.md"))
    assert not {*PROTOCOLS, *LPIPS} - named


def test_blocks_are_of_a_known_kind():
    assert {block.language for page in PAGES for block in blocks(page)} <= {
        "bash",
        "python",
        "yaml",
        "text",
        "",
    }
    assert not [str(one) for one in all_commands() if "…" in one.text], "a command that nobody can type"
