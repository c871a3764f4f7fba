"""Where the time of a step goes: some steps of a run under torch's profiler, which changes nothing they compute."""

import contextlib
import logging
import os
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile, record_function

from model.network import SpikeVRT
from model.training.learner import Learner
from pipeline.clips import Sample
from pipeline.files import write_atomic

logger = logging.getLogger(__name__)

WARM_UP, PROFILED = 5, 5
"""Steps of a session that are left out, as they do what is done once, and how many are looked at after them."""
DATA_WAIT, TRANSFER, REST = "data wait", "transfer", "rest"
_PHASE, _PART = "phase: ", "part: "
_ROWS, _TABLE_ROWS = 8, 200


@dataclass(frozen=True, kw_only=True, slots=True)
class ProfileReport:
    """What was found. The profiler itself takes time, the more so the shorter the operators are.

    Attributes:
        steps: steps that were looked at.
        step_s: mean seconds of one.
        phases: shares of that time; together 1. What is copied while the device computes does not count.
        parts: shares of the forward pass by part of the network; of the device's time if that is another.
        operators: shares of the operators' own time, on the device, the largest first.
        trace: for https://ui.perfetto.dev.
        table: all of this as text, and more operators.
    """

    steps: int
    step_s: float
    phases: Mapping[str, float]
    parts: Mapping[str, float]
    operators: Mapping[str, float]
    trace: Path
    table: Path

    def to_json(self) -> dict[str, Any]:
        """What `spk train --json` says of it."""
        paths = {"trace": str(self.trace), "table": str(self.table)}
        return paths | {"steps": self.steps, "step_s": self.step_s, "phases": dict(self.phases)}

    def __str__(self) -> str:
        return "\n".join(
            [
                f"profile of {self.steps} steps of {1e3 * self.step_s:.4g} ms",
                *_column("of a step", self.phases, len(self.phases)),
                *_column("of forward, by part of the network", self.parts, _ROWS),
                *_column("of the operators' own time", self.operators, _ROWS),
            ]
        )


class StepProfiler:
    """Profiles some steps of a session once it is warm, and then takes itself away.

    Use it as a context around the training: what is not written by then is written at its end.

    Args:
        learner: its phases and the parts of its network are named.
        folder: for `trace.json.gz` and `table.txt`.
        steps: steps that this session will do.

    Attributes:
        report: what was found, once it is written.
    """

    def __init__(self, learner: Learner, folder: Path, steps: int) -> None:
        self.report: ProfileReport | None = None
        self._learner = learner
        self._folder = folder
        self._device = learner.place.device
        self._profiled = min(PROFILED, steps - WARM_UP)
        self._begun = 0
        self._steps: list[list[_Span]] = []
        self._hooks = contextlib.ExitStack()
        self._running: profile | None = None
        if self._profiled < 1:
            logger.warning("no profile: the first %d steps are left out, and there are %d", WARM_UP, steps)

    def __enter__(self) -> "StepProfiler":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._running and kind is None:
            self._finish()
        elif self._running:
            self._stop()

    def watch(self, batches: Iterator[Sample]) -> Iterator[Sample]:
        """The same batches; waiting for one is a phase of a step."""
        while True:
            with self._phase(DATA_WAIT):
                batch = next(batches, None)
            if batch is None:
                return
            yield batch

    def before_step(self, step: int) -> None:
        """To be called before each step, outside of what is timed."""
        if self._running and len(self._steps) == self._profiled:
            self._finish()
        if self._begun == WARM_UP and self._profiled > 0:
            self._start()
        if self._running:
            self._steps.append([])
        self._begun += 1

    def _start(self) -> None:
        self._learner.phase = self._phase
        self._hooks.callback(setattr, self._learner, "phase", contextlib.nullcontext)
        for name, part in _parts(self._learner.network).items():
            self._hooks.enter_context(_named(name, part))
        os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # it would write lines of its own to the terminal
        cuda = [ProfilerActivity.CUDA] if self._device.type == "cuda" else []
        self._running = profile(activities=[ProfilerActivity.CPU, *cuda], acc_events=True)
        self._running.start()

    def _stop(self) -> profile:
        assert self._running is not None
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        self._running.stop()
        self._hooks.close()
        stopped, self._running = self._running, None
        return stopped

    def _finish(self) -> None:
        stopped = self._stop()
        try:
            self.report = self._write(stopped)
        except OSError as error:
            logger.error("the profile CANNOT BE WRITTEN: %s; training goes on", error)
            return
        logger.info("%s", self.report)
        logger.info(
            "the whole profile: %s (open it at https://ui.perfetto.dev), %s",
            self.report.trace,
            self.report.table,
        )

    def _write(self, stopped: profile) -> ProfileReport:
        trace, table = self._folder / "trace.json.gz", self._folder / "table.txt"
        step_s, phases = _shares_of_phases(self._steps)
        parts, operators = _shares_of_code(stopped, self._device)
        report = ProfileReport(
            steps=len(self._steps),
            step_s=step_s,
            phases=phases,
            parts=parts,
            operators=operators,
            trace=trace,
            table=table,
        )
        kind = "cpu" if self._device.type == "cpu" else "device"
        every = stopped.key_averages().table(
            sort_by=f"self_{kind}_time_total", row_limit=_TABLE_ROWS, max_name_column_width=80
        )
        write_atomic(table, f"{report}\n\n{every}\n")
        with tempfile.TemporaryDirectory(dir=self._folder) as unfinished:
            stopped.export_chrome_trace(f"{unfinished}/{trace.name}")
            os.replace(f"{unfinished}/{trace.name}", trace)
        return report

    @contextlib.contextmanager
    def _phase(self, name: str) -> Iterator[None]:
        if self._running is None:
            yield
            return
        start = self._now()
        with record_function(_PHASE + name):
            yield
        self._steps[-1].append(_Span(name, start, self._now()))

    def _now(self) -> "_Moment":
        event = None
        if self._device.type == "cuda":
            event = torch.cuda.Event(enable_timing=True)
            event.record(torch.cuda.current_stream(self._device))
        return _Moment(time.perf_counter(), event)


class _Moment(NamedTuple):
    """When the host was here, and the event that tells when a device, which runs behind it, is."""

    host_s: float
    event: torch.cuda.Event | None


class _Span(NamedTuple):
    """A phase from its start to its stop."""

    name: str
    start: _Moment
    stop: _Moment


def _seconds(start: _Moment, stop: _Moment) -> float:
    """Between two moments, on the device."""
    if start.event and stop.event:
        return start.event.elapsed_time(stop.event) * 1e-3
    return stop.host_s - start.host_s


def _shares_of_phases(steps: list[list[_Span]]) -> tuple[float, dict[str, float]]:
    """Mean seconds of a step, and how they are shared by its phases."""
    total, spent = 0.0, Counter({DATA_WAIT: 0.0, TRANSFER: 0.0})
    for spans in steps:
        total += _seconds(spans[0].start, spans[-1].stop)
        for span in spans:
            seconds = _seconds(span.start, span.stop)
            if span.name == DATA_WAIT:  # what goes beyond the host's waiting is the device's, for a copy
                waited = min(span.stop.host_s - span.start.host_s, seconds)
                spent += Counter({DATA_WAIT: waited, TRANSFER: seconds - waited})
            else:
                spent[span.name] += seconds
    spent[REST] = max(total - spent.total(), 0.0)
    return total / len(steps), {name: seconds / total for name, seconds in spent.items()}


def _shares_of_code(stopped: profile, device: torch.device) -> tuple[dict[str, float], dict[str, float]]:
    """Shares of the parts of the network in the forward pass, and of the operators in their own time."""
    on_host = device.type == "cpu"
    parts, operators, forward = Counter[str](), Counter[str](), 0.0
    for event in stopped.events() or ():
        if event.device_type != DeviceType.CPU:
            continue  # what ran on the device is told of the operators that started it
        total = event.cpu_time_total if on_host else event.device_time_total
        if event.name.startswith(_PART):
            parts[event.name.removeprefix(_PART)] += total
        elif event.name == f"{_PHASE}forward":
            forward += total
        elif not event.name.startswith(_PHASE):
            operators[event.name] += event.self_cpu_time_total if on_host else event.self_device_time_total
    return (
        {name: time / max(forward, 1e-9) for name, time in parts.most_common()},
        {name: time / max(operators.total(), 1e-9) for name, time in operators.most_common()},
    )


def _parts(network: nn.Module) -> dict[str, nn.Module]:
    """What the network is made of, without parts that are compiled: their graph would have to know of the hooks."""
    parts = network.parts() if isinstance(network, SpikeVRT) else dict(network.named_children())
    return {name: part for name, part in parts.items() if part._compiled_call_impl is None}


@contextlib.contextmanager
def _named(name: str, part: nn.Module) -> Iterator[None]:
    """Name what the forward pass of `part` does in the profile."""
    open_ranges: list[record_function] = []

    def enter(*_: object) -> None:
        open_ranges.append(record_function(_PART + name))
        open_ranges[-1].__enter__()

    def leave(*_: object) -> None:
        open_ranges.pop().__exit__(None, None, None)

    hooks = part.register_forward_pre_hook(enter), part.register_forward_hook(leave, always_call=True)
    yield
    for hook in hooks:
        hook.remove()


def _column(title: str, shares: Mapping[str, float], most: int) -> list[str]:
    return [f"  {title}:", *(f"    {share:6.1%}  {name}" for name, share in list(shares.items())[:most])]
