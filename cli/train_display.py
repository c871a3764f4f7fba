"""A training run on a terminal, as it goes: what `rich` draws again and again below the log messages."""

import time
from collections import deque
from collections.abc import Callable

from rich.console import Console, ConsoleOptions, RenderResult
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from cli.console import printable
from cli.sparkline import levels_for, sparkline
from model.training.events import Listener, StepMetrics, Validation
from model.training.hints import SLOW_DATA
from model.training.runlog import duration

REMEMBERED = 2000
"""Values of a curve; those before are forgotten."""
RATE_STEPS = 100
"""Steps over which the time that is left is estimated, with validation and saving between them."""
LABEL_WIDTH = 10
NARROWEST_CURVE, WIDEST_CURVE = 8, 60


class TrainDisplay(Listener):
    """Remembers what it is told of a run, and renders it in the width there is.

    Args:
        name: of the run.
        steps: of the whole run.
        clock: seconds, from any start.
    """

    def __init__(self, name: str, steps: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.name = name
        self.steps = steps
        self.clock = clock
        self.step = 0
        self.metrics: StepMetrics | None = None
        self.losses: deque[float] = deque(maxlen=REMEMBERED)
        self.psnrs: deque[float] = deque(maxlen=REMEMBERED)
        self.best: tuple[int, float] | None = None
        self.saved: tuple[int, float] | None = None
        self._done: deque[tuple[int, float]] = deque(maxlen=RATE_STEPS)

    def progress(self, done: int, total: int, what: str) -> None:
        """A step is done."""
        self.step, self.steps = done, total
        self._done.append((done, self.clock()))

    def on_step(self, metrics: StepMetrics) -> None:
        """Show its figures."""
        self.metrics = metrics
        self.losses.append(metrics.loss)

    def on_validation(self, step: int, validation: Validation, is_best: bool) -> None:
        """Show the result."""
        self.psnrs.append(validation.psnr)
        if is_best:
            self.best = step, validation.psnr

    def on_saved(self, step: int, is_best: bool) -> None:
        """Show how long it is ago."""
        self.saved = step, self.clock()

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """All of it, a line each, none of them folded."""
        room = options.max_width - LABEL_WIDTH - 6
        curve = max(NARROWEST_CURVE, min(WIDEST_CURVE, room - 34))
        levels = levels_for(options.encoding)
        table = Table.grid(padding=(0, 1), expand=True)
        table.add_column(width=LABEL_WIDTH, style="dim", no_wrap=True)
        table.add_column(ratio=1, no_wrap=True, overflow="crop")
        table.add_row("step", self._bar(room))
        if self.metrics:
            self._add_figures(table, self.metrics, curve, levels)
        if self.psnrs:
            best = "  best {1:.2f} at step {0:,}".format(*self.best) if self.best else ""
            shown = f"{self.psnrs[-1]:<8.2f}{sparkline(tuple(self.psnrs), curve, levels=levels)}{best}"
            table.add_row("val PSNR", Text(shown))
        if self.saved:
            step, when = self.saved
            table.add_row("checkpoint", Text(f"step {step:,}, {duration(self.clock() - when)} ago"))
        yield Panel(
            table, title=Text(printable(self.name), style="bold"), title_align="left", border_style="dim"
        )

    def _bar(self, room: int) -> Table:
        said = f"{self.step:,} / {self.steps:,}  {self.step / max(self.steps, 1):.0%}  {self._time_left()}"
        row = Table.grid(padding=(0, 2))
        width = max(4, room - len(said) - 3)
        row.add_row(ProgressBar(total=self.steps, completed=self.step, width=width), Text(said, no_wrap=True))
        return row

    def _time_left(self) -> str:
        if self.step == self.steps:
            return "done"
        if len(self._done) < 2:
            return "starting"
        (first, then), (last, now) = self._done[0], self._done[-1]
        return f"ETA {duration((self.steps - self.step) * (now - then) / max(last - first, 1))}"

    def _add_figures(self, table: Table, metrics: StepMetrics, curve: int, levels: str) -> None:
        table.add_row(
            "loss", Text(f"{metrics.loss:<8.4f}{sparkline(tuple(self.losses), curve, levels=levels)}")
        )
        learning = f"lr {metrics.lr:.1e}  grad norm {metrics.grad_norm:.3g}  epoch {metrics.epoch:.1f}"
        table.add_row("learning", Text(learning))
        if metrics.skipped:
            table.add_row("left out", Text(f"{metrics.skipped:,} steps", style="red"))
        memory = f"{metrics.memory_bytes / 2**30:.1f} GiB"
        speed = f"{metrics.steps_per_s:.3g} it/s  {metrics.samples_per_s:.3g} clips/s  {memory}"
        table.add_row("speed", Text(speed))
        share, slow = metrics.data_share, metrics.data_share > SLOW_DATA
        bar = ProgressBar(
            total=1, completed=1 - share, width=max(curve - 8, 8), style="yellow", complete_style="green"
        )
        row = Table.grid(padding=(0, 2))
        row.add_row(bar, Text(f"compute {1 - share:.0%}  data {share:.0%}", style="yellow" if slow else ""))
        table.add_row("time", row)
