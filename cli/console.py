"""How commands talk: results to stdout, everything else to stderr, bars on a terminal only."""

import contextlib
import json
import logging
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.logging import RichHandler
from rich.table import Table

from pipeline.reports import Progress, Quarantined, no_progress

EXIT_QUARANTINED = 3

Out = Annotated[Path, typer.Option("--out", "-o", help="Where to write.", show_default=False)]
Workers = Annotated[int, typer.Option(min=1, help="Threads to work with.")]
Scheduler = Annotated[
    str | None,
    typer.Option(help="An existing Dask cluster, tcp://HOST:PORT, to use instead of threads here."),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Build anew even what is finished.")]
Json = Annotated[
    bool, typer.Option("--json", help="Print one JSON object to stdout, everything else to stderr.")
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress, warnings only.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="More messages, and tracebacks.")]


class Output:
    """What a command prints, in the way its options ask for."""

    def __init__(self, *, as_json: bool = False, quiet: bool = False, verbose: bool = False) -> None:
        self.as_json = as_json
        self.quiet = quiet
        self._notes = Console(stderr=True, highlight=False)
        self._results = Console(highlight=False, soft_wrap=True)
        level = logging.WARNING if quiet else logging.DEBUG if verbose else logging.INFO
        handler = RichHandler(console=self._notes, show_path=verbose, show_time=verbose, markup=False)
        logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[handler], force=True)
        for package in ("cli", "model", "pipeline"):
            logging.getLogger(package).setLevel(level)

    def say(self, text: str) -> None:
        """A line for people, on stdout, unless JSON goes there."""
        if not self.quiet:
            (self._notes if self.as_json else self._results).print(text)

    def table(self, title: str, columns: Iterable[str], rows: Iterable[Iterable[str]]) -> None:
        """A table for people; all columns but the first are aligned to the right."""
        table = Table(title=title, title_justify="left", title_style="bold")
        for number, column in enumerate(columns):
            table.add_column(column, justify="right" if number else "left")
        for row in rows:
            table.add_row(*row)
        (self._notes if self.as_json else self._results).print(table)

    def result(self, value: Mapping[str, Any]) -> None:
        """The command's JSON object, if it was asked for."""
        if self.as_json:
            typer.echo(json.dumps(value, default=str))

    def quarantined(self, problems: Iterable[Quarantined]) -> None:
        """List inputs that were set aside, and exit with the code that says so."""
        problems = tuple(problems)
        if problems:
            self.table(
                f"{len(problems)} set aside", ("input", "reason"), [(p.path, p.reason) for p in problems]
            )
            raise typer.Exit(EXIT_QUARANTINED)

    @contextlib.contextmanager
    def progress(self) -> Iterator[Progress]:
        """A progress bar per kind of work, on a terminal; nothing elsewhere."""
        if self.quiet or not self._notes.is_terminal:
            yield no_progress
            return
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bars

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Bars(*columns, console=self._notes, transient=True) as bars:
            tasks: dict[str, Any] = {}

            def report(done: int, total: int, what: str) -> None:
                if what not in tasks:
                    tasks[what] = bars.add_task(what, total=total)
                bars.update(tasks[what], completed=done, total=total)

            yield report


def human_bytes(count: float) -> str:
    """1536 as '1.5 KiB'."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"
