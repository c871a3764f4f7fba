"""What a store of very many sequences costs before a single pixel is read: planned, opened, inspected, trained from.

python benchmarks/scale.py [N] [--frames F] [--folder DIR]

N sequences (10,000 unless told otherwise) of F frames, 720p with spikes of 360x640 and 32 bins: recordings as empty
files, and a store with true metadata and ledgers whose shards are files of the right size without content. With
`--frames 648` 10,000 sequences are 100 TB. Each step runs in a process of its own, whose peak memory is that of the
step and of the imports. At the end: what the pieces of 1 TB cost to schedule.
"""

import argparse
import dataclasses
import functools
import math
import multiprocessing
import os
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pipeline.align import Alignment
from pipeline.blocks import SpikeFile, SpikeFiles
from pipeline.config import build, to_plain
from pipeline.examine import Examined
from pipeline.manifest import Manifest
from pipeline.overview import store_facts
from pipeline.recordings import find_recordings
from pipeline.reports import no_progress
from pipeline.sequence_files import Recording
from pipeline.sequence_jobs import IMAGE_AXES, sequence_jobs
from pipeline.stats import CountHistogram, stats_attributes
from pipeline.storage.root import INGEST, SPK_FORMAT, STATS, VOXELIZE, write_group, write_node, write_root
from pipeline.storage.shards import (
    CRC_BYTES,
    SEAL_BYTES,
    ArrayLayout,
    Index,
    frames_layout,
    shard_key,
    spikes_layout,
    table_layout,
    write_shard,
)
from pipeline.store import open_store, stage_record, stats_digests
from pipeline.tasks import run_all

RGB, SPIKES, BINS, WINDOW, RATE = (720, 1280), (360, 640), 32, 88, 1920
RAW_FRAMES = 6
"""Frames of each recording of empty files: what is found for each file shows with few of them."""
SPLIT, GRIDS = "train", "k32"
SEQUENCE = "SEQUENCE"
"""Stands for the name of a sequence in metadata that is written once and copied."""
TASKS = {"threads": 20_000, "distributed": 2_000}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("sequences", type=int, nargs="?", default=10_000)
    parser.add_argument("--frames", type=int, default=24, help="frames of a sequence")
    parser.add_argument("--folder", type=Path, help="where to put the files, which are removed afterwards")
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=wanted.folder) as name:
        folder = Path(name)
        make_raw(folder / "raw", wanted.sequences)
        held = make_store(folder / "store", wanted.sequences, wanted.frames)
        sys.stdout.write(store_table(folder, wanted.sequences, held))
    sys.stdout.write(task_table())


def store_table(folder: Path, num_sequences: int, held: "Held") -> str:
    """A Markdown table: seconds and peak memory of each step on `num_sequences` sequences."""
    title = (
        f"### {num_sequences:,} sequences, {held.shard_bytes / 1e12:.1f} TB in {held.shards:,} shards,"
        f" {held.metadata_bytes / 1e6:.0f} MB of metadata in {held.metadata_files:,} files"
    )
    lines = [title, "", "| step | seconds | peak memory, MB |", "| --- | ---: | ---: |"]
    for step in STEPS:
        seconds, megabytes = in_a_process(step, folder)
        lines.append(f"| {(step.__doc__ or '').rstrip('.')} | {seconds:.1f} | {megabytes:.0f} |")
    return "\n".join(lines) + "\n\n"


def task_table() -> str:
    """A Markdown table: what a task costs that does nothing, and how much data is one task."""
    layouts = [layout for layout in array_layouts(1000).values() if layout.dtype == "uint8"]
    pieces = sum(math.prod(layout.grid) for layout in layouts)
    held = sum(math.prod(layout.shape) for layout in layouts)
    per_terabyte = pieces / held * 1e12
    lines = [f"### {per_terabyte:,.0f} pieces to a TB, {held / pieces / 1e6:.0f} MB each", ""]
    lines += ["| run by | ms for a piece that does nothing | seconds for a TB |", "| --- | ---: | ---: |"]
    for runner in (on_threads, on_distributed):
        ms = runner() * 1e3
        lines.append(f"| {runner.__doc__} | {ms:.2f} | {ms * per_terabyte / 1e3:.0f} |")
    return "\n".join(lines) + "\n"


def in_a_process(step: Callable[[Path], float], folder: Path) -> tuple[float, float]:
    """Seconds of a step and the peak memory, in MB, of the process of its own in which it ran."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_measured, args=(step, folder, sender))
    process.start()
    sender.close()
    seconds, megabytes = receiver.recv()
    process.join()
    return seconds, megabytes


def _measured(step: Callable[[Path], float], folder: Path, sender: Any) -> None:
    seconds = step(folder)
    sender.send((seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3))


def seconds_of(function: Callable[[], object]) -> float:
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


# Recordings of empty files


@functools.cache
def manifest() -> Manifest:
    folder = "{split}/{sequence}"
    values = {
        "name": "scale",
        "layout": {
            "spikes": f"{folder}/spikes.dat",
            "blurry": f"{folder}/blurry/{{frame}}.png",
            "sharp": f"{folder}/sharp/{{frame}}.png",
            "log": f"{folder}/exposures.csv",
        },
        "spikes": {"height": SPIKES[0], "width": SPIKES[1], "rate_hz": RATE},
        "exposure": {"rule": "log", "dialect": "csv"},
        "scale": 2,
        "splits": {SPLIT: {}},
    }
    return build(Manifest, values, "benchmarks/scale.py")


def make_raw(root: Path, num_sequences: int) -> None:
    for name in sequence_names(num_sequences):
        sequence = root / SPLIT / name
        for kind in ("blurry", "sharp"):
            (sequence / kind).mkdir(parents=True)
            for frame in frame_names(RAW_FRAMES):
                _touch(f"{sequence}/{kind}/{frame}.png")
        for file in ("spikes.dat", "exposures.csv"):
            _touch(f"{sequence}/{file}")


def sequence_names(count: int) -> list[str]:
    return [f"scene_{number:06d}" for number in range(count)]


def frame_names(count: int) -> tuple[str, ...]:
    return tuple(f"{number:06d}" for number in range(count))


def _touch(path: str, size: int = 0) -> None:
    descriptor = os.open(path, os.O_CREAT | os.O_WRONLY, 0o644)
    os.ftruncate(descriptor, size)  # without content: it reads as zeros, and takes no room
    os.close(descriptor)


# A store whose shards have no content


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Held:
    """What was written."""

    shards: int
    shard_bytes: int
    metadata_files: int
    metadata_bytes: int


def array_layouts(frames: int) -> dict[str, ArrayLayout]:
    """The arrays of one sequence, as ingest and voxelize lay them out."""
    images = frames_layout((frames, 3, *RGB), IMAGE_AXES)
    spans = table_layout((frames, 2), ("frame", "edge"))
    grids = frames_layout((frames, BINS, *SPIKES), ("frame", f"{GRIDS}_bin", "spike_row", "spike_column"))
    return {
        "spikes": spikes_layout((frames * WINDOW, SPIKES[0], SPIKES[1] // 8)),
        "blurry": images,
        "sharp": images,
        "exposure": spans,
        "exposure_ns": spans,
        "sharp_index": table_layout((frames,), ("frame",)),
        f"voxels/{GRIDS}": grids,
    }


def shard_bytes(layout: ArrayLayout, shard: Index) -> int:
    """Size of the file of an uncompressed shard."""
    sides = [part.stop - part.start for part in layout.region(shard)]
    chunks = math.prod(-(-n // c) for n, c in zip(sides, layout.chunk, strict=True))
    return chunks * (layout.chunk_bytes + CRC_BYTES) + SEAL_BYTES + layout.index_bytes


def make_store(store: Path, num_sequences: int, frames: int) -> Held:
    """Metadata and tables as the program writes them, and shards of frames of the right size."""
    template, layouts = store.with_name("template"), array_layouts(frames)
    ledgers = {name: _ledger(template / name, layout, frames) for name, layout in layouts.items()}
    write_group(template, sequence_attributes(frames, list(layouts)))
    write_group(template / "voxels", {})
    for name, layout in layouts.items():
        attributes = array_attributes(name, frames) | {"ledger": ledgers[name]}
        write_node(template / name, layout.metadata(attributes))
    texts = {node: (template / node / "zarr.json").read_text() for node in ("", "voxels", *layouts)}
    for sequence in sequence_names(num_sequences):
        for node, text in texts.items():
            folder = store / SPLIT / sequence / node
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "zarr.json").write_text(text.replace(SEQUENCE, sequence))
            for key, (size, _) in ledgers.get(node, {}).items():
                os.makedirs(os.path.dirname(f"{folder}/{key}"), exist_ok=True)
                if node in tables(frames):
                    shutil.copyfile(template / node / key, folder / key)
                else:
                    _touch(f"{folder}/{key}", size)
    write_group(store / SPLIT, {})
    write_root_of(store, num_sequences, list(layouts))
    sizes = [size for ledger in ledgers.values() for size, _ in ledger.values()]
    return Held(
        shards=num_sequences * len(sizes),
        shard_bytes=num_sequences * sum(sizes),
        metadata_files=num_sequences * len(texts),
        metadata_bytes=num_sequences * sum(map(len, texts.values())) + (store / "zarr.json").stat().st_size,
    )


def _ledger(array: Path, layout: ArrayLayout, frames: int) -> dict[str, list[int]]:
    """Size and seal of each shard; those of tables are written, so that they can be read."""
    values = tables(frames).get(array.name)
    if values is None:
        return {shard_key(shard): [shard_bytes(layout, shard), 3_141_592_653] for shard in layout.shards()}
    receipts = [write_shard(array, layout, shard, values[layout.region(shard)]) for shard in layout.shards()]
    return {one.key: [one.size, one.seal] for one in receipts}


def tables(frames: int) -> dict[str, npt.NDArray[np.int64]]:
    """Exposures that follow each other, each with its sharp frame in the middle."""
    starts = np.arange(frames, dtype=np.int64) * WINDOW
    spans = np.stack([starts, starts + WINDOW], axis=1)
    return {"exposure": spans, "exposure_ns": spans * 520_833, "sharp_index": starts + WINDOW // 2}


def sequence_attributes(frames: int, arrays: list[str]) -> dict[str, Any]:
    """As `SequenceJobs.attributes`, of a sequence called `SEQUENCE`."""
    names = frame_names(frames)
    images = [f"{SPLIT}/{SEQUENCE}/{kind}/{name}.png" for kind in ("blurry", "sharp") for name in names]
    return {
        "source_name": SEQUENCE,
        "frames": names,
        "positions": list(range(frames)),
        "arrays": [name for name in arrays if "/" not in name],
        "spike_shape": SPIKES,
        "format": to_plain(manifest().spikes),
        "checks": {"smoothness": 0.9912, "in_period": True, "upright": True},
        "sources": [[name, 1_177_767, 1_795_558_738_243_623_118] for name in images],
        "alignment_offset": 0,
        "residual_ns": [0] * frames,
        "left_out": [],
        "timing": {},
        "set_aside": [],
    }


def array_attributes(name: str, frames: int) -> dict[str, Any]:
    fit = {"slope": 0.913284, "offset": 0.001416, "r2": 0.981274, "gamma": 2.2, "attainable": 0.979274}
    about: dict[str, dict[str, Any]] = {
        "exposure": {"light": [fit] * frames},
        "blurry": {"pixels_crc32c": [3_141_592_653] * frames},
        "sharp": {"pixels_crc32c": [3_141_592_653] * frames},
        f"voxels/{GRIDS}": {"num_bins": BINS, "histogram": [1_000_000] * 4 + [0] * 252},
    }
    return about.get(name, {}) | {"inputs": "0" * 64}


def write_root_of(store: Path, num_sequences: int, arrays: list[str]) -> None:
    histogram = CountHistogram(np.array([1_000_000] * 4 + [0] * 252))
    write_group(store / STATS, {})
    write_group(store / STATS / GRIDS, stats_attributes(histogram, num_bins=BINS, split=SPLIT))
    keys = [f"{SPLIT}/{name}" for name in sequence_names(num_sequences)]
    ingested = {key: [SPLIT, key, *(f"{key}/{name}" for name in arrays if "/" not in name)] for key in keys}
    counted = {key: [f"{key}/voxels", f"{key}/voxels/{GRIDS}"] for key in keys}
    stages = {
        INGEST: stage_record(store, ingested),
        VOXELIZE + GRIDS: stage_record(store, counted) | {STATS: stats_digests(store, GRIDS)},
    }
    attributes = {
        "spk_format": SPK_FORMAT,
        "name": "scale",
        "manifest": to_plain(manifest()),
        "scale": 2,
        "splits": {SPLIT: sequence_names(num_sequences)},
        "provenance": {"raw": "nowhere", "spk": "benchmark"},
    }
    write_root(store, attributes, stages)


# The steps


def find(folder: Path) -> float:
    """Recordings found (`find_recordings`)."""
    return seconds_of(lambda: find_recordings(manifest(), folder / "raw"))


def plan(folder: Path) -> float:
    """Arrays of every recording planned, none of them in the store (`sequence_jobs`)."""
    recordings = find_recordings(manifest(), folder / "raw")

    def planned() -> int:
        sequences = [
            sequence_jobs(folder / "raw", folder / "new", _examined(one), manifest()) for one in recordings
        ]
        return sum(not job.is_finished() for sequence in sequences for job in sequence.jobs)

    return seconds_of(planned)


def _examined(recording: Recording) -> Examined:
    """As if its files had content."""
    frames = len(recording.frames)
    alignment = Alignment(
        frames=recording.frames,
        **tables(frames),
        positions=np.arange(frames, dtype=np.int64),
        residual_ns=np.zeros(frames, np.int64),
        problems=(),
    )
    assert recording.format is not None
    return Examined(
        recording=recording,
        alignment=alignment,
        files=SpikeFiles(
            files=tuple(SpikeFile(path, frames * WINDOW) for path in recording.spike_paths),
            format=recording.format,
        ),
        blurry_paths=recording.blurry_paths,
        sharp_paths=recording.sharp_paths,
        scale=2,
        checks={},
    )


def open_checked(folder: Path) -> float:
    """Store opened, every digest and every shard's size compared (`open_store`)."""
    return seconds_of(lambda: open_store(folder / "store"))


def open_unchecked(folder: Path) -> float:
    """Store opened without looking (`open_store(check=False)`)."""
    return seconds_of(lambda: open_store(folder / "store", check=False))


def open_sequences(folder: Path) -> float:
    """Every sequence of the open store opened (`Store.sequence`)."""
    store = open_store(folder / "store", check=False)
    return seconds_of(lambda: [store.sequence(*key) for key in store.sequence_keys])


def inspect(folder: Path) -> float:
    """Every sequence of the open store described (`store_facts`, as `spk inspect` shows them)."""
    store = open_store(folder / "store", check=False)
    return seconds_of(lambda: store_facts(store))


def choose_clips(folder: Path) -> float:
    """Clips of the open store listed, all its arrays opened (`ClipSource`)."""
    from pipeline.clips import ClipConfig, ClipSource  # the only step that needs torch

    store = open_store(folder / "store", check=False)
    return seconds_of(lambda: ClipSource(store, SPLIT, GRIDS, ClipConfig()))


STEPS: tuple[Callable[[Path], float], ...] = (
    find,
    plan,
    open_checked,
    open_unchecked,
    open_sequences,
    inspect,
    choose_clips,
)


# Scheduling


def nothing(item: int) -> int:
    return item


def on_threads() -> float:
    """Dask, 2 threads"""
    items = range(TASKS["threads"])
    return seconds_of(
        lambda: run_all(nothing, items, workers=2, scheduler=None, progress=no_progress, what="pieces")
    ) / len(items)


def on_distributed() -> float:
    """Dask distributed, 2 workers"""
    from distributed import LocalCluster

    items = range(TASKS["distributed"])
    with LocalCluster(n_workers=2, threads_per_worker=1, processes=False, dashboard_address=None) as cluster:
        address = cluster.scheduler_address
        return seconds_of(
            lambda: run_all(nothing, items, workers=1, scheduler=address, progress=no_progress, what="pieces")
        ) / len(items)


if __name__ == "__main__":
    main()
