"""The page around the numbers: HTML, style and script, kept as files of their own kinds in `page/`."""

from importlib.resources import files

STYLES = ("base.css", "tables.css", "viewer.css", "plots.css")
SCRIPTS = ("dom.js", "view.js", "stage.js", "viewer.js", "strip.js", "plots.js", "tables.js", "main.js")
"""In the order in which they stand on the page; they share one scope."""


def template() -> str:
    """The page, as a `string.Template`."""
    return _read("page.html")


def style() -> str:
    return "\n".join(map(_read, STYLES))


def script() -> str:
    """All scripts in one function, so that nothing of them is global."""
    return '"use strict";\n(() => {\n' + "\n".join(map(_read, SCRIPTS)) + "})();\n"


def _read(name: str) -> str:
    return files("model.report").joinpath("page", name).read_text(encoding="utf-8")
