"""The page of error messages quotes messages that the program has."""

import ast
import re

import pytest

from tests.docs.pages import REPOSITORY, name_of

PAGE = REPOSITORY / "docs" / "troubleshooting.md"
HOLE = "…"
ROW = re.compile(r"^\| `([^|]+)` \|", re.MULTILINE)
QUOTED = ROW.findall(PAGE.read_text())


@pytest.fixture(scope="module")
def messages() -> list[str]:
    """Every text in the source; what an f-string fills in is a hole."""
    found = []
    for path in [
        path for package in ("cli", "model", "pipeline") for path in (REPOSITORY / package).rglob("*.py")
    ]:
        tree = ast.parse(path.read_text())
        comments = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}  # docstrings
        for node in ast.walk(tree):
            if id(node) in comments:
                continue
            if isinstance(node, ast.JoinedStr):
                found.append(
                    "".join(part.value if isinstance(part, ast.Constant) else HOLE for part in node.values)
                )
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return found


def test_every_message_is_looked_up():
    rows = [line for line in PAGE.read_text().splitlines() if line.startswith("| `")]
    assert len(QUOTED) == len(rows) > 30 and len(set(QUOTED)) == len(QUOTED), name_of(PAGE)


@pytest.mark.parametrize("quoted", QUOTED)
def test_the_program_says_so(quoted, messages):
    pattern = re.compile(".*?".join(re.escape(part.strip()) for part in quoted.split(HOLE)), re.DOTALL)
    assert any(pattern.search(text) for text in messages)
