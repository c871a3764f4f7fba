"""What is known of a training run before its first step: the device, the network's needs, how fast clips come."""

import itertools
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from model.checkpoint import versions
from model.cost import Activations, clip_size, count_flops, measure_activations
from model.parallel import parallel
from model.planning.device import Device, device_of, free_bytes
from model.planning.stretches import stretches_of
from model.training.config import TrainConfig
from model.training.dry_run import plan_training
from model.training.validation import spread, windows_of
from pipeline.clips import ClipConfig, ClipSource, batches
from pipeline.machine import peak_memory_bytes, processors
from pipeline.reports import Progress
from pipeline.store import Store, open_store

READING_S = 0.7
"""How long clips are read with each number of threads."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipNeeds:
    """What the clips of one size need.

    Attributes:
        clip: their size.
        clips: most that a step has of them.
        activations: that are kept for backward, of one clip.
        forward_flops: of one clip.
    """

    clip: ClipConfig
    clips: int
    activations: Activations
    forward_flops: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Survey:
    """What is known beforehand.

    Attributes:
        config: with the name of the voxel grids filled in.
        num_clips: to learn from.
        free_bytes: memory of the device that is left to the run.
        parameters: of the network.
        trainable: those of them that learn.
        idle_bytes: main memory of a process that has loaded the program.
        needs: of each size of clip that the run has.
        clips_per_s: of the first steps, read from the store by so many threads, nothing else being done.
        validated: clips of a validation, and of one that takes one clip of each sequence.
        scale: RGB pixels per spike pixel.
        store: its place and fingerprint.
    """

    config: TrainConfig
    num_clips: int
    device: Device
    free_bytes: int
    parameters: int
    trainable: int
    idle_bytes: int
    needs: tuple[ClipNeeds, ...]
    clips_per_s: dict[int, float]
    validated: tuple[int, int]
    scale: int
    store: dict[str, str]
    versions: dict[str, str]


def survey(config: TrainConfig, run: Path, *, progress: Progress) -> Survey:
    """Check all that training would, and measure what can be without a step.

    Args:
        run: a folder that does not exist.

    Raises:
        SpkError: as `train`.
    """
    checks = plan_training(config, run)
    store = open_store(config.store)
    config = replace(config, voxels=store.voxel_name(config.voxels))
    threads = list(_threads(config.workers, processors().worth))
    sizes: dict[ClipConfig, int] = {}
    stretches = stretches_of(config)
    for stretch in stretches:
        sizes[stretch.clip] = max(stretch.clips, sizes.get(stretch.clip, 0))
    done, total = itertools.count(1), len(threads) + 2 * len(sizes)
    supply = {}
    source = ClipSource(store, "train", config.voxels or "", stretches[0].clip)
    for workers in threads:
        supply[workers] = _reading_rate(source, config, workers)
        progress(next(done), total, "reading clips")
    with parallel(config.parallel) as place:
        needs = []
        for clip, clips in sizes.items():
            size = clip_size(replace(config, batch_size=1, clip=clip), source.num_bins, source.scale)
            flops = count_flops(config.network, size, backward=False)
            progress(next(done), total, "counting operations")
            activations = measure_activations(config.network, size, place, flops)
            progress(next(done), total, "counting activations")
            needs.append(
                ClipNeeds(clip=clip, clips=clips, activations=activations, forward_flops=flops.of(""))
            )
        return Survey(
            config=config,
            num_clips=checks.clips,
            device=device_of(config.parallel.device),
            free_bytes=free_bytes(place.device),
            parameters=checks.parameters,
            trainable=checks.trainable,
            idle_bytes=0 if place.device.type == "cuda" else peak_memory_bytes(),
            needs=tuple(needs),
            clips_per_s=supply,
            validated=_validated(config, store),
            scale=source.scale,
            store={"path": store.place, "fingerprint": store.fingerprint},
            versions=versions(),
        )


def _threads(wanted: int, processors: int) -> Iterator[int]:
    """The config's number of threads, and more as far as there are processors for them."""
    number = max(wanted, 1)
    yield number
    while (number := 2 * number) <= processors:
        yield number


def _reading_rate(source: ClipSource, config: TrainConfig, workers: int) -> float:
    """Clips a second that so many threads read."""
    reading = batches(source, seed=config.seed, start_step=0, batch_size=workers, workers=workers)
    with closing(reading):  # type: ignore[type-var] - a generator
        next(reading)  # opens what is opened once
        clips, begun = 0, time.perf_counter()
        while (seconds := time.perf_counter() - begun) < READING_S or not clips:
            next(reading)
            clips += workers
    return clips / seconds


def _validated(config: TrainConfig, store: Store) -> tuple[int, int]:
    if not config.validate_every:
        return 0, 0
    usable = [s for s in store.sequences("val") if s.blurry is not None and s.has_sharp.any()]
    windows = [list(windows_of(sequence, config.clip.num_frames)) for sequence in usable]
    most = config.validate_clips
    return sum(len(spread(some, most)) for some in windows), sum(len(spread(some, 1)) for some in windows)
