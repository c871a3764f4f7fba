"""How commands talk: results to stdout, everything else to stderr, bars on a terminal only."""

import contextlib
import json
import logging
import math
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console, RenderableType
from rich.logging import RichHandler
from rich.table import Table
from rich.text import Text

from pipeline.reports import Progress, Quarantined, no_progress

EXIT_QUARANTINED = 3
EXIT_CHECK_FAILED = 4
EXIT_RESUMABLE = 75
"""EX_TEMPFAIL: training was stopped by a signal, saved its state, and can be resumed."""

Out = Annotated[Path, typer.Option("--out", "-o", help="Where to write.", show_default=False)]
Workers = Annotated[int, typer.Option(min=1, help="Threads to work with.")]
Scheduler = Annotated[
    str | None,
    typer.Option(help="An existing Dask cluster, tcp://HOST:PORT, to use instead of threads here."),
]
Codec = Annotated[
    Literal["none", "lz4", "zstd"],
    typer.Option(help="none: read straight from the map; lz4, zstd: smaller, and read more slowly."),
]
Parts = Annotated[
    str | None,
    typer.Option(
        help="Build only part i of N, as 2/8, beside other processes; `spk finalise` merges.",
        show_default=False,
    ),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Build anew even what is finished.")]
Json = Annotated[
    bool, typer.Option("--json", help="Print one JSON object to stdout, everything else to stderr.")
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress, warnings only.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="More messages, and tracebacks.")]

MAX_LISTED = 20
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
PLAIN_WIDTH = 160
"""Columns of a table that goes to a file or a pipe."""


def printable(text: str) -> str:
    """The text without what commands a terminal: file names and files may hold escape sequences."""
    return _CONTROL.sub(lambda found: ascii(found[0])[1:-1], text)


def process_rank(variable: str = "RANK") -> int:
    """This process's number among those that torchrun started; 0 without it. Only process 0 reports.

    Args:
        variable: "RANK", or "LOCAL_RANK" for the number among those on this machine.
    """
    text = os.environ.get(variable, "0")
    return int(text) if text.isdigit() else 0


class Output:
    """What a command prints, in the way its options ask for."""

    def __init__(self, *, as_json: bool = False, quiet: bool = False, verbose: bool = False) -> None:
        self.as_json = as_json
        self.quiet = quiet
        self.speaks = process_rank() == 0
        self._notes = _console(stderr=True)
        self._results = _console(stderr=False)
        level = logging.WARNING if quiet else logging.DEBUG if verbose else logging.INFO
        level = level if self.speaks else logging.ERROR
        handler = _log_handler(self._notes, verbose=verbose)
        handler.addFilter(_make_printable)
        self._handler = handler
        handler.setLevel(level)  # a run's log.txt hears more than the user wants to
        logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
        for package in ("cli", "model", "pipeline"):
            logging.getLogger(package).setLevel(level)

    @property
    def _for_people(self) -> Console:
        return self._notes if self.as_json else self._results

    def say(self, text: str) -> None:
        """A line for people, on stdout, unless JSON goes there."""
        if self.speaks and not self.quiet:
            self._for_people.print(Text(printable(text)), soft_wrap=True)

    def table(self, title: str, columns: Iterable[str], rows: Iterable[Iterable[str]]) -> None:
        """A table for people; all columns but the first are aligned to the right."""
        if not self.speaks:
            return
        self._for_people.print(
            Text(printable(title), style="bold"), soft_wrap=True
        )  # a table's own title is folded
        table = Table()
        for number, column in enumerate(columns):
            table.add_column(printable(column), justify="right" if number else "left", overflow="fold")
        for row in rows:
            table.add_row(*(Text(printable(cell)) for cell in row))
        self._for_people.print(table)

    def result(self, value: Mapping[str, Any]) -> None:
        """The command's JSON object, if it was asked for; numbers that JSON does not know are null."""
        if self.as_json and self.speaks:
            typer.echo(json.dumps(_finite(value), default=str, allow_nan=False))

    def quarantined(self, problems: Sequence[Quarantined]) -> None:
        """List inputs that were set aside, a line each, even if quiet, and exit with the code that says so."""
        if not problems:
            return
        lines = [f"set aside: {problem.path}: {problem.reason}" for problem in problems[:MAX_LISTED]]
        if len(problems) > MAX_LISTED:
            lines.append(f"and {len(problems) - MAX_LISTED} more, all of which --json lists")
        if self.speaks:
            self._for_people.print(Text(printable("\n".join(lines))), soft_wrap=True)
        raise typer.Exit(EXIT_QUARANTINED)

    @property
    def is_watched(self) -> bool:
        """Whether somebody looks at a terminal and wants to see how it goes."""
        return not self.quiet and self.speaks and sys.stderr.isatty()

    @contextlib.contextmanager
    def live(self, shown: RenderableType) -> Iterator[None]:
        """Draw `shown` again and again below the log messages, and leave it there at the end.

        Messages that only repeat what it shows, marked `routine`, are not printed meanwhile.
        """
        from rich.live import Live

        self._handler.addFilter(_is_news)
        try:
            with Live(shown, console=self._notes, redirect_stdout=False):
                yield
        finally:
            self._handler.removeFilter(_is_news)

    @contextlib.contextmanager
    def progress(self) -> Iterator[Progress]:
        """A progress bar, on a terminal; nothing elsewhere."""
        if not self.is_watched:
            yield no_progress
            return
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bars

        what_column = TextColumn("{task.description}", markup=False)
        columns = (what_column, BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Bars(*columns, console=self._notes, transient=True) as bars:
            task = bars.add_task("", total=None)
            last = (0, 0)

            def report(done: int, total: int, what: str) -> None:
                nonlocal last
                if total != last[1] or done < last[0]:  # another kind of work begins
                    bars.reset(task, total=total, description=what)
                bars.update(task, completed=done, total=total, description=what)
                last = done, total

            yield report


def _console(*, stderr: bool) -> Console:
    """A console that prints text as it is; without a terminal it does not fold tables to one's width."""
    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else PLAIN_WIDTH
    return Console(stderr=stderr, highlight=False, markup=False, emoji=False, width=width)


def _log_handler(console: Console, *, verbose: bool) -> logging.Handler:
    if sys.stderr.isatty():
        rich = RichHandler(console=console, show_path=verbose, show_time=verbose, markup=False)
        rich.setFormatter(logging.Formatter("%(message)s"))  # the handler adds level, and time and place
        return rich
    handler = logging.StreamHandler(sys.stderr)
    detail = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"
    handler.setFormatter(logging.Formatter(detail if verbose else "%(levelname)-7s %(message)s"))
    return handler


def _make_printable(record: logging.LogRecord) -> logging.LogRecord:
    shown = logging.makeLogRecord(record.__dict__)  # other handlers get the message as it is
    shown.msg, shown.args = printable(record.getMessage()), None
    return shown


def _is_news(record: logging.LogRecord) -> bool:
    return not getattr(record, "routine", False)


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def counted(number: int, noun: str) -> str:
    """1 as '1 sequence', 2 as '2 sequences'."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def human_bytes(count: float) -> str:
    """1536 as '1.5 KiB'."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def human_time(seconds: float) -> str:
    """5400 as '1 h 30 min'."""
    minutes, hours = round(seconds / 60), round(seconds / 3600)
    if seconds < 100:
        return f"{seconds:.3g} s"
    if minutes < 100:
        return f"{minutes} min"
    if hours < 48:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{hours // 24} d {hours % 24} h"
