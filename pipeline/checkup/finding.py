"""What one check found, and running checks that may themselves fail."""

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from pipeline.errors import SpkError
from pipeline.reports import Progress, no_progress

logger = logging.getLogger(__name__)

Status = Literal["ok", "note", "problem"]


@dataclass(frozen=True, slots=True)
class Finding:
    """The outcome of a check.

    Attributes:
        name: what was looked at.
        status: "note" is worth knowing and may slow things down; with a "problem", something will fail.
        found: the facts.
        fix: what to do about it, as a command where there is one.
    """

    name: str
    status: Status
    found: str
    fix: str = ""


Check = Callable[[], Iterable[Finding]]


def ok(name: str, found: str) -> Finding:
    """All is well."""
    return Finding(name, "ok", found)


def note(name: str, found: str, fix: str = "") -> Finding:
    """Something is worth knowing."""
    return Finding(name, "note", found, fix)


def problem(name: str, found: str, fix: str) -> Finding:
    """Something will fail."""
    return Finding(name, "problem", found, fix)


def run_checks(checks: Iterable[tuple[str, Check]], progress: Progress = no_progress) -> list[Finding]:
    """Run every check, whatever becomes of the others.

    Args:
        checks: each with the name of what it looks at. One that raises has found a problem.
    """
    table = list(checks)
    findings: list[Finding] = []
    for done, (name, check) in enumerate(table):
        progress(done, len(table), name)
        try:
            findings += check()
        except SpkError as error:
            findings.append(problem(name, error.problem, error.fix))
        except ImportError as error:
            logger.debug("%s", name, exc_info=True)
            package = (error.name or name).partition(".")[0]
            fix = f"pip install --upgrade --force-reinstall {package}"
            findings.append(problem(name, f"{package} cannot be imported: {error}", fix))
        except Exception as error:  # a broken environment raises whatever it likes
            logger.debug("%s", name, exc_info=True)
            findings.append(problem(name, f"{type(error).__name__}: {error}", _REPORT))
    progress(len(table), len(table), "")
    return findings


_REPORT = "run `spk doctor -v` to see where, and install what is named there again"
