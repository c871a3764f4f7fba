"""What is in the pages: code blocks, commands, tables' code spans, links."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_SPAN = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
_LINK = re.compile(r"\]\(([^)\s]+)\)")


@dataclass(frozen=True)
class Block:
    """A fenced block: where it begins, the language of its fence, the text between."""

    page: Path
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{name_of(self.page)}:{self.line}"


@dataclass(frozen=True)
class Command:
    """One command of a ```bash block, as words."""

    page: Path
    line: int
    words: tuple[str, ...]

    @property
    def text(self) -> str:
        return shlex.join(self.words)

    def __str__(self) -> str:
        return f"{name_of(self.page)}:{self.line}: {self.text}"


def name_of(page: Path) -> str:
    """README.md, docs/store.md."""
    return page.relative_to(REPOSITORY).as_posix()


def blocks(page: Path, *languages: str) -> list[Block]:
    """The fenced blocks of a page; of these languages, where any are named."""
    text = page.read_text()
    found = [
        Block(page, text.count("\n", 0, match.start()) + 1, match[1], match[2])
        for match in _FENCE.finditer(text)
    ]
    return [block for block in found if not languages or block.language in languages]


def commands(block: Block) -> Iterator[Command]:
    """The commands of a block, in order; a backslash continues a line, `&&` and `;` come between two commands."""
    text = re.sub(r"\\\n", lambda _: "  ", block.text)
    for number, line in enumerate(text.splitlines()):
        words: list[str] = []
        for word in [*shlex.split(line, comments=True), "&&"]:
            if word not in ("&&", ";"):
                words.append(word)
            elif words:
                yield Command(block.page, block.line + 1 + number, tuple(words))
                words = []


def all_commands() -> list[Command]:
    """Those of all pages."""
    return [one for page in PAGES for block in blocks(page, "bash") for one in commands(block)]


def prose(page: Path) -> str:
    """A page without its fenced blocks."""
    return _FENCE.sub("", page.read_text())


def spans(page: Path) -> list[str]:
    """The `code` in the prose of a page."""
    return _SPAN.findall(prose(page))


def links(page: Path) -> list[str]:
    """Targets of links and pictures."""
    return _LINK.findall(prose(page))


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives to the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
