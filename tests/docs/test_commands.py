"""Every command of README.md and docs/*.md runs, in the order of the pages, or is listed with a reason."""

import subprocess
from pathlib import Path

import pytest
import typer

from cli.main import app
from tests.docs.pages import PAGES, Command, all_commands, blocks, commands, name_of
from tests.docs.rules import EXIT_CODES, NOT_RUN, SLOW, expected, matches, parts, small
from tests.docs.world import Catalogue, World

TOOLS = {"cp", "mkdir"}
"""Of the system, that a page may use beside `spk`."""
BUCKET = "s3://bucket"


def of_page(page: Path) -> list[Command]:
    return [one for block in blocks(page, "bash") for one in commands(block)]


@pytest.mark.parametrize("slow", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["quick", "all"])
@pytest.mark.parametrize("page", [page for page in PAGES if of_page(page)], ids=name_of)
def test_the_commands_of_a_page_run(page, slow, spk, tmp_path, catalogue: Catalogue, request):
    world = World(tmp_path, page, catalogue)
    for command in of_page(page):
        if matches(command.words, NOT_RUN) or not world.provide(command.words):
            continue
        for words in parts(small(command.words)):
            if matches(words, SLOW) and not slow:
                continue
            if any(BUCKET in word for word in words):
                bucket = request.getfixturevalue("s3")
                words = [word.replace(BUCKET, bucket) for word in words]
            if words[0] in TOOLS:
                subprocess.run(words, check=True)
                continue
            ran = spk(*words[1:])
            assert ran.code in expected(words), f"{command}\nexit code {ran.code}: {ran.err}"


def test_every_command_is_run_or_listed():
    other = [
        str(one)
        for one in all_commands()
        if one.words[0] not in {"spk", *TOOLS} and not matches(one.words, NOT_RUN)
    ]
    assert not other, "neither a command of spk nor in NOT_RUN"


@pytest.mark.parametrize("table", [NOT_RUN, SLOW, EXIT_CODES], ids=["NOT_RUN", "SLOW", "EXIT_CODES"])
def test_what_is_listed_is_in_the_pages(table):
    unused = [entry for entry in table if not any(matches(one.words, [entry]) for one in all_commands())]
    assert not unused


def test_every_command_of_the_program_is_in_the_pages():
    shown = {one.words[1] for one in all_commands() if one.words[0] == "spk" and len(one.words) > 1}
    there = set(typer.main.get_command(app).commands)
    assert shown == there
