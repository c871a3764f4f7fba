"""`spk simulate`: sharp light to blurry and sharp frames, spikes and a timestamp log."""

import logging
import multiprocessing
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from pipeline.config import to_plain
from pipeline.errors import SpkError, UsageError
from pipeline.reports import Progress, no_progress
from pipeline.simulation.frame_sources import find_sources
from pipeline.simulation.rig import RigConfig, film
from pipeline.simulation.scenes import SceneConfig
from pipeline.simulation.simulated import SPLITS, claim, sequence_folder, write_sequence
from pipeline.simulation.takes import Take, scene_takes
from pipeline.simulation.video_takes import VideoConfig, video_takes

VERSION = 2
"""Raised when the same settings would give other bytes, so that old and new sequences are never mixed."""

log = logging.getLogger(__name__)

Config = TypeVar("Config", SceneConfig, VideoConfig)


@dataclass(frozen=True, kw_only=True, slots=True)
class SimulateReport:
    """What `simulate` did; `written` and `skipped` count sequences, `frames` RGB frames in all."""

    raw: Path
    sequences: int
    frames: int
    written: int
    skipped: int
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """The stable `--json` object."""
        return asdict(self) | {"raw": str(self.raw)}


def simulate_scenes(
    out: Path,
    config: SceneConfig,
    *,
    seed: int = 0,
    workers: int = 1,
    overwrite: bool = False,
    dry_run: bool = False,
    progress: Progress = no_progress,
) -> SimulateReport:
    """Film generated scenes into `out`; sequences that are there are kept, and the bytes depend on config and seed.

    Raises:
        UsageError: `out` holds something else, and `overwrite` is not given.
        FormatError: the camera's sensor maps cannot be read.
    """
    config = _identified(config)
    settings = {"version": VERSION, "source": "scenes", "seed": seed, "config": config}
    shoot = _Shoot(out, scene_takes(config), config.rig, seed)
    return shoot.run(settings, workers=workers, overwrite=overwrite, dry_run=dry_run, progress=progress)


def simulate_video(
    source: Path,
    out: Path,
    config: VideoConfig,
    *,
    seed: int = 0,
    workers: int = 1,
    overwrite: bool = False,
    dry_run: bool = False,
    progress: Progress = no_progress,
) -> SimulateReport:
    """Film a user's images, frame folders or videos under `source` into `out`, as `config.motion` says.

    Raises:
        UsageError: nothing usable at `source`, or `out` holds something else and `overwrite` is not given.
        FormatError: an image, a video or the camera's sensor maps cannot be read.
    """
    config = _identified(config)
    sources = find_sources(source)
    names = [f"{found.path.resolve()}: {len(found)} frames" for found in sources]
    settings = {"version": VERSION, "source": names, "seed": seed, "config": config}
    shoot = _Shoot(out, video_takes(sources, config), config.rig, seed)
    return shoot.run(settings, workers=workers, overwrite=overwrite, dry_run=dry_run, progress=progress)


def _identified(config: Config) -> Config:
    """The config with the digests of the files its camera depends on: what the bytes depend on is in the settings."""
    return replace(config, rig=replace(config.rig, camera=config.rig.camera.identified()))


@dataclass(frozen=True, slots=True)
class _Shoot:
    """All takes of one simulation."""

    out: Path
    takes: Sequence[Take]
    rig: RigConfig
    seed: int

    def run(
        self, settings: Mapping[str, Any], *, workers: int, overwrite: bool, dry_run: bool, progress: Progress
    ) -> SimulateReport:
        """Film what is missing."""
        if self.seed < 0 or workers < 1:
            raise UsageError(f"seed {self.seed} must be 0 or more, and workers {workers} 1 or more")
        started = time.monotonic()
        kept = claim(self.out, to_plain(settings), overwrite=overwrite, dry_run=dry_run)
        missing = [n for n, take in enumerate(self.takes) if not (kept and self._folder(take).is_dir())]
        written = 0
        for written, sequence in enumerate(() if dry_run else self._film_all(missing, workers), start=1):
            progress(written, len(missing), sequence)
        report = SimulateReport(
            raw=self.out,
            sequences=len(self.takes),
            frames=len(self.takes) * self.rig.num_frames,
            written=written,
            skipped=len(self.takes) - len(missing),
            seconds=time.monotonic() - started,
        )
        log.info("%s: %d sequences written, %d were there", self.out, report.written, report.skipped)
        return report

    def _folder(self, take: Take) -> Path:
        return sequence_folder(self.out, take.split, take.sequence)

    def _film_all(self, indices: Sequence[int], workers: int) -> Iterator[str]:
        """Film the takes at `indices`, in this process or in several, and yield the names of finished ones."""
        if min(workers, len(indices)) <= 1:
            yield from (self.film_one(index) for index in indices)
            return
        # Spawned, not forked: the caller may hold threads and locks. A Ctrl-C is the parent's to handle.
        context = multiprocessing.get_context("spawn")
        pool = ProcessPoolExecutor(
            min(workers, len(indices)), context, signal.signal, (signal.SIGINT, signal.SIG_IGN)
        )
        try:
            waiting: list[Future[str]] = [pool.submit(self.film_one, index) for index in indices]
            for future in as_completed(waiting):
                yield future.result()
        except BrokenProcessPool as error:
            raise SpkError(
                f"{self.out}: a worker died, perhaps for lack of memory",
                "run the same command again, it continues; with --workers 1 if it happens again",
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)

    def film_one(self, index: int) -> str:
        """Film and write one take; its bytes depend on the seed and its place, not on who films it or when."""
        take = self.takes[index]
        same_split = [other for other in self.takes if other.split == take.split]
        key = (SPLITS.index(take.split), same_split.index(take))
        rng = np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=key))
        write_sequence(self.out, take.split, take.sequence, film(take.footage(rng), self.rig, rng), self.rig)
        return take.sequence
