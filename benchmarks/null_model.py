"""Does the loader keep up? The trainer's own loop with a network that only takes time, and how long it waits for clips.

python benchmarks/null_model.py [FOLDER] [--needed SAMPLES_PER_S] [--batch N]

A clip is 5 frames, 32 bins, RGB crop 256, spike crop 128. The network sleeps, as the host does while a device computes;
Trainer, Learner, optimizer and averaged weights are the real ones, and the wait is the `data` share of the trainer's
log lines. All that a device would compute is left to the sleep: the learner gets a corner of each clip.

Each reader is asked for the rate that is needed, and for ever less than it can do when nothing is computed, until at
most 1 % of the time is spent waiting. The peer is torch's DataLoader: over one PNG per frame and one float32 .npy per
voxel grid, and over the same store as ours. Everything is in memory, and every checksum was verified before.
"""

import argparse
import contextlib
import functools
import itertools
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from benchmarks.clip_reading import CLIP, SCALE, Files, arrays_of, prepare, selections
from benchmarks.recording import COMPRESSED_GRIDS, RAW_GRIDS
from model.losses import CombinedLoss, LossConfig
from model.parallel import Parallel
from model.training.events import Listener, StepMetrics
from model.training.feed import feed
from model.training.learner import Learner
from model.training.optim import OptimConfig
from model.training.signals import StopRequest
from model.training.trainer import Schedule, Trainer
from pipeline.clips import ClipConfig, ClipSource, Sample, batches
from pipeline.store import Store

CPU = torch.device("cpu")
SPIKE_CROP = 128
CORNER = 8
WORKERS = (0, 1, 2, 4)
MOST_WAIT = 0.01
LESS = 0.8
TRIES = 6
WINDOW_S, WINDOWS = 0.7, 3


class NullNetwork(nn.Module):
    """Takes `seconds` for a batch, and gives it back."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds
        self.gain = nn.Parameter(torch.ones(()))

    def forward(self, blurry: Tensor, voxels: Tensor | None = None) -> Tensor:
        if self.seconds > 0:
            time.sleep(self.seconds)
        return blurry * self.gain


class Samples(Dataset):
    """The samples of our source, one by one, for a DataLoader."""

    def __init__(self, source: ClipSource) -> None:
        self.source = source

    def __getitem__(self, number: int) -> Sample:
        return self.source.read(self.source.draw(number, seed=0))

    def __len__(self) -> int:
        return 1 << 30


class PictureFiles(Dataset):
    """Samples from PNG and .npy files, not turned, for a DataLoader."""

    def __init__(self, folder: Path) -> None:
        self.files = Files(folder)
        self.cuts = list(itertools.islice(selections(SPIKE_CROP), 256))

    def __getitem__(self, number: int) -> Sample:
        voxels, blurry, sharp = self.files(*self.cuts[number % len(self.cuts)])
        return Sample(*(torch.from_numpy(part) for part in (blurry, voxels, sharp)))

    def __len__(self) -> int:
        return 1 << 30


Open = Callable[[int], contextlib.AbstractContextManager[Iterator[Sample]]]


def ours(source: ClipSource, batch: int) -> Open:
    @contextlib.contextmanager
    def opened(workers: int) -> Iterator[Iterator[Sample]]:
        read = functools.partial(batches, source, seed=0, start_step=0, batch_size=batch, workers=workers)
        clips = feed(CPU, read)
        yield clips
        clips.close()

    return opened


def data_loader(samples: Dataset, batch: int) -> Open:
    @contextlib.contextmanager
    def opened(workers: int) -> Iterator[Iterator[Sample]]:
        clips = iter(DataLoader(samples, batch_size=batch, num_workers=workers))
        yield clips
        del clips  # ends its processes

    return opened


class Window(NamedTuple):
    """A line of the trainer's log: the share of waiting, the CPU time of the waiting thread in it, seconds a step."""

    waited: float
    cpu: float
    step_s: float


class Lines(Listener):
    """The trainer's log lines, but the first."""

    def __init__(self) -> None:
        self.windows: list[Window] = []
        self._cpu_s, self._last = 0.0, 0

    def corners(self, clips: Iterator[Sample]) -> Iterator[Sample]:
        while True:
            before = time.thread_time()
            clip = next(clips)
            self._cpu_s += time.thread_time() - before
            yield Sample(*(part[..., :CORNER, :CORNER] for part in clip))

    def on_step(self, metrics: StepMetrics) -> None:
        seconds = (metrics.step - self._last) / metrics.steps_per_s
        if self._last:
            self.windows.append(Window(metrics.data_share, self._cpu_s / seconds, 1 / metrics.steps_per_s))
        self._cpu_s, self._last = 0.0, metrics.step


def train(clips: Iterator[Sample], seconds: float, every: int, windows: int) -> Window:
    """Train with a network of `seconds` a batch; medians over windows of `every` steps."""
    loss = CombinedLoss(LossConfig(perceptual_weight=0.0))
    learner = Learner(
        NullNetwork(seconds), loss, None, OptimConfig(), Parallel(device=CPU), steps=1 << 20, seed=0
    )
    heard = Lines()
    schedule = Schedule(steps=every * (windows + 1), log_every=every)
    trainer = Trainer(learner, schedule, save=lambda milestone: None, listeners=[heard])
    trainer.fit(heard.corners(clips), StopRequest())
    return Window(*(statistics.median(values) for values in zip(*heard.windows, strict=True)))


def fixed_seconds(batch: int) -> float:
    """What a step takes besides reading and sleeping."""
    clip = Sample(*(torch.zeros((batch, CLIP, 3, CORNER, CORNER), dtype=torch.uint8) for _ in range(3)))
    return train(itertools.repeat(clip), 0.0, 50, 5).step_s


def wait(opened: Open, workers: int, batch: int, rate: float, fixed: float, reached: float) -> Window:
    """What is waited for clips when `rate` samples a second are asked for.

    Args:
        reached: samples a second the reader may be able to give, for windows that do not take forever.
    """
    every = max(2, round(WINDOW_S * min(rate, reached) / batch))
    with opened(workers) as clips:
        return train(clips, batch / rate - fixed, every, WINDOWS)


def alone(opened: Open, workers: int, batch: int) -> tuple[float, float]:
    """Samples a second when nothing is done with them, and this process's CPU milliseconds for each."""
    with opened(workers) as clips:
        for _ in range(2):
            next(clips)
        started, cpu, count = time.perf_counter(), time.process_time(), 0
        while time.perf_counter() < started + WINDOW_S or count < 4:
            next(clips)
            count += 1
        samples = batch * count
        return samples / (time.perf_counter() - started), 1e3 * (time.process_time() - cpu) / samples


def most(opened: Open, workers: int, batch: int, fixed: float, reached: float) -> float | None:
    """The highest rate tried, in samples a second, of which no more than `MOST_WAIT` of the time is spent waiting."""
    rate = min(reached, batch / (fixed + 1e-3))
    for _ in range(TRIES):
        rate *= LESS
        if wait(opened, workers, batch, rate, fixed, reached).waited <= MOST_WAIT:
            return rate
    return None


def verify(store: Store) -> None:
    """Touch every chunk, so that its checksum is verified before anything is timed."""
    for sequence in store.sequences("train"):
        for grids in (RAW_GRIDS, COMPRESSED_GRIDS):
            for array in arrays_of(sequence, grids):
                array[:]


def readers(store: Store, folder: Path, batch: int) -> dict[str, Open]:
    config = ClipConfig(num_frames=CLIP, crop=SCALE * SPIKE_CROP)
    sources = {grids: ClipSource(store, "train", grids, config) for grids in (RAW_GRIDS, COMPRESSED_GRIDS)}
    found = {
        "DataLoader, PNG and .npy": data_loader(PictureFiles(folder), batch)
    }  # over which the others are told
    for grids, source in sources.items():
        found[f"DataLoader, {grids} store"] = data_loader(Samples(source), batch)
        found[f"ours, {grids}"] = ours(source, batch)
    return found


def compare(store: Store, folder: Path, batch: int, needed: float) -> Iterator[str]:
    fixed = fixed_seconds(batch)
    yield f"### Batches of {batch}, {needed:g} samples/s needed; load average {os.getloadavg()[0]:.1f}\n"
    titles = (
        "workers",
        "CPU ms a sample",
        "waiting",
        "CPU of it",
        "samples/s with <= 1 %",
        "over PNG and .npy",
    )
    yield f"| reader | {' | '.join(titles)} |"
    yield "| --- |" + " ---: |" * len(titles)
    peer: dict[int, float | None] = {}
    for name, opened in readers(store, folder, batch).items():
        for workers in WORKERS:
            reached, cpu_ms = alone(opened, workers, batch)
            found = wait(opened, workers, batch, needed, fixed, reached)
            rate = most(opened, workers, batch, fixed, reached) if workers else None
            base = peer.setdefault(workers, rate)
            cells = [
                f"{cpu_ms:.2f}"
                if not workers or name.startswith("ours")
                else "-",  # processes have their own
                f"{found.waited:.2%}",
                f"{found.cpu:.2%}",
                f"{rate:.3g}" if rate else "-",
                f"{rate / base:.0f}" if rate and base else "-",
            ]
            yield f"| {name} | {workers} | {' | '.join(cells)} |"
    yield f"\nload average {os.getloadavg()[0]:.1f}\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--needed", type=float, default=30.0, help="samples a second")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 4])
    given = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        store = prepare(folder)
        verify(store)
        for batch in given.batch:
            for line in compare(store, folder, batch, given.needed):
                sys.stdout.write(line + "\n")
                sys.stdout.flush()


if __name__ == "__main__":
    main()
