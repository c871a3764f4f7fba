"""What a store of very many sequences costs before a single pixel is read: planned, opened, inspected, trained from.

python benchmarks/scale.py [N] [--frames F] [--folder DIR]

N sequences (10,000 unless told otherwise) of F frames, 720p with spikes of 360x640 and 32 bins: recordings as empty
files, and a store with true metadata and ledgers whose shards are files of the right size without content. With
`--frames 648` 10,000 sequences are 100 TB. Each step runs in a process of its own, whose peak memory is that of the
step and of the imports. At the end: what a task costs, and what 100 TB would cost with shards of other sizes.
"""

import argparse
import dataclasses
import functools
import hashlib
import math
import multiprocessing
import os
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import numpy.typing as npt

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pipeline.align import Alignment
from pipeline.blocks import SpikeFile, SpikeFiles
from pipeline.config import build, to_plain
from pipeline.examine import Examined
from pipeline.files import write_atomic
from pipeline.manifest import Manifest
from pipeline.overview import store_facts
from pipeline.recordings import find_recordings
from pipeline.reports import no_progress
from pipeline.sequence_files import Recording
from pipeline.sequence_jobs import IMAGE_AXES, sequence_jobs
from pipeline.stats import CountHistogram, stats_attributes
from pipeline.storage import shards
from pipeline.storage.nodes import Nodes
from pipeline.storage.root import (
    INGEST,
    SPK_FORMAT,
    STATS,
    VOXELIZE,
    encoded,
    group_metadata,
    root_metadata,
)
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
from pipeline.store import open_store
from pipeline.tasks import run_all

RGB, SPIKES, BINS, WINDOW, RATE = (720, 1280), (360, 640), 32, 88, 1920
RAW_FRAMES = 6
"""Frames of each recording of empty files: what is found for each file shows with few of them."""
SPLIT, GRIDS = "train", "k32"
SEQUENCE = "SEQUENCE"
"""Stands for the name of a sequence in metadata that is written once and copied."""
TASKS = {"threads": 20_000, "distributed": 2_000}

SHARD_SIZES = (8, 32, 64, 128, 256)
ARCHIVE, ARCHIVE_FRAMES = 10_000, 648
"""Sequences of an archive of 100 TB, and frames of each."""
FSYNCS = 4
"""Of a piece, and of its receipt, file and folder each; every new folder on the way to a shard is one more."""
LOOKED_AT, WRITTEN = 10_000, 200

Step = Callable[[Path], Callable[[], object]]
"""Prepares what is to be timed."""


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
        costs = unit_costs(folder)
    task_ms = {"Dask, 2 threads": on_threads() * 1e3, "distributed, 2 workers": on_distributed() * 1e3}
    sys.stdout.write(task_table(task_ms) + archive_table(task_ms, *costs))


def store_table(folder: Path, num_sequences: int, held: "Held") -> str:
    """A Markdown table: seconds and peak memory of each step on `num_sequences` sequences."""
    title = (
        f"### {num_sequences:,} sequences, {held.shard_bytes / 1e12:.1f} TB in {held.shards:,} shards,"
        f" {held.metadata_bytes / 1e6:.0f} MB of metadata in {held.metadata_files:,} files"
    )
    lines = [title, "", "| step | s | CPU s | peak memory, MB |", "| --- | ---: | ---: | ---: |"]
    for step in STEPS:
        seconds, cpu, megabytes = in_a_process(step, folder)
        what = (step.__doc__ or "").rstrip(".")
        lines.append(f"| {what} | {seconds:.1f} | {cpu:.1f} | {megabytes:.0f} |")
    return "\n".join(lines) + "\n\n"


def task_table(task_ms: Mapping[str, float]) -> str:
    """A Markdown table: what a task costs that does nothing."""
    lines = ["### Scheduling", "", "| run by | CPU ms for a piece that does nothing |", "| --- | ---: |"]
    lines += [f"| {name} | {ms:.2f} |" for name, ms in task_ms.items()]
    return "\n".join(lines) + "\n\n"


def archive_table(task_ms: Mapping[str, float], lstat_us: float, fsync_ms: float) -> str:
    """A Markdown table: what 100 TB cost with shards of other sizes, counted from the layouts and from unit costs."""
    lines = [
        f"### 100 TB: {ARCHIVE} sequences of {ARCHIVE_FRAMES} frames, at {lstat_us:.1f} us of CPU to look at a file and"
        f" {fsync_ms:.2f} ms for an fsync",
        "",
        "| shards of | frames of a grid | shards | folders | ledgers | sizes looked at | fsyncs"
        f" | {' | '.join(task_ms)} |",
        f"| --- |{' ---: |' * (6 + len(task_ms))}",
    ]
    for mebibytes in SHARD_SIZES:
        with mock.patch.object(shards, "TARGET_SHARD_BYTES", mebibytes << 20):
            layouts = array_layouts(ARCHIVE_FRAMES)
        keys = [(shard_key(shard), layout) for layout in layouts.values() for shard in layout.shards()]
        pieces = ARCHIVE * len(keys)
        folders = ARCHIVE * sum(len(layout.shape) - 1 for _, layout in keys)
        ledger = ARCHIVE * sum(
            len(encoded({key: [shards.TARGET_SHARD_BYTES, 3_141_592_653]})) for key, _ in keys
        )
        fsyncs = FSYNCS * pieces + folders
        cells = [
            f"{mebibytes} MiB",
            f"{layouts[f'voxels/{GRIDS}'].shard[0]}",
            f"{pieces / 1e6:.2f} M",
            f"{folders / 1e6:.2f} M",
            f"{ledger / 1e6:.0f} MB",
            f"{pieces * lstat_us / 1e6:.0f} s",
            f"{fsyncs / 1e6:.1f} M, {fsyncs * fsync_ms / 6e4:.0f} min",
            *(f"{pieces * ms / 6e4:.1f} min" for ms in task_ms.values()),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def unit_costs(folder: Path) -> tuple[float, float]:
    """Microseconds to look at a file's size, and milliseconds for an fsync of a small file or its folder."""
    names = [f"{folder}/{number}" for number in range(LOOKED_AT)]
    for name in names:
        _touch(name)
    _, looked = seconds_of(lambda: [os.lstat(name) for name in names])
    written, _ = seconds_of(lambda: [write_atomic(folder / "synced", "x" * 100) for _ in range(WRITTEN)])
    return looked / LOOKED_AT * 1e6, written / WRITTEN / 2 * 1e3


def in_a_process(step: Step, folder: Path) -> tuple[float, float, float]:
    """Wall and CPU seconds of a step, and the peak memory, in MB, of the process of its own in which it ran."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_measured, args=(step, folder, sender))
    process.start()
    sender.close()
    found: tuple[float, float, float] = receiver.recv()
    process.join()
    return found


def _measured(step: Step, folder: Path, sender: Any) -> None:
    wall, cpu = seconds_of(step(folder))
    sender.send((wall, cpu, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3))


def seconds_of(function: Callable[[], object]) -> tuple[float, float]:
    """Wall and CPU seconds of a call."""
    started = time.perf_counter(), time.process_time()
    function()
    return time.perf_counter() - started[0], time.process_time() - started[1]


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
    metadata = {"": group_metadata(sequence_attributes(frames, list(layouts))), "voxels": group_metadata({})}
    for name, layout in layouts.items():
        metadata[name] = layout.metadata(array_attributes(name, frames) | {"ledger": ledgers[name]})
    texts = {node: encoded(one) for node, one in metadata.items()}
    digests = {}
    for sequence in sequence_names(num_sequences):
        for node, text in texts.items():
            folder = store / SPLIT / sequence / node
            digests |= _write_node(store, folder, text.replace(SEQUENCE, sequence))
            for key, (size, _) in ledgers.get(node, {}).items():
                os.makedirs(os.path.dirname(f"{folder}/{key}"), exist_ok=True)
                if node in tables(frames):
                    shutil.copyfile(template / node / key, folder / key)
                else:
                    _touch(f"{folder}/{key}", size)
    write_root(store, num_sequences, digests)
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


def write_root(store: Path, num_sequences: int, digests: dict[str, str]) -> None:
    """The groups above the sequences, and the record of them all. Without fsync: a benchmark may be lost."""
    histogram = CountHistogram(np.array([1_000_000] * 4 + [0] * 252))
    statistics = stats_attributes(histogram, num_bins=BINS, split=SPLIT)
    above = _write_node(store, store / SPLIT, encoded(group_metadata({})))
    stats = _write_node(store, store / STATS, encoded(group_metadata({})))
    stats |= _write_node(store, store / STATS / GRIDS, encoded(group_metadata(statistics)))
    ingested: dict[str, dict[str, str]] = {}
    counted: dict[str, dict[str, str]] = {}
    for node, digest in digests.items():
        split, name, *below = node.split("/")
        stage = counted if below[:1] == ["voxels"] else ingested
        stage.setdefault(f"{split}/{name}", dict(above) if stage is ingested else {})[node] = digest
    stages = {INGEST: {"sequences": ingested}, VOXELIZE + GRIDS: {"sequences": counted, STATS: stats}}
    attributes = {
        "spk_format": SPK_FORMAT,
        "name": "scale",
        "manifest": to_plain(manifest()),
        "scale": 2,
        "splits": {SPLIT: sequence_names(num_sequences)},
        "provenance": {"raw": "nowhere", "spk": "benchmark"},
    }
    (store / "zarr.json").write_text(encoded(root_metadata(attributes, stages)))


def _write_node(store: Path, node: Path, text: str) -> dict[str, str]:
    """Write a `zarr.json`; the digest of it, by its path below the store."""
    node.mkdir(parents=True, exist_ok=True)
    (node / "zarr.json").write_text(text)
    return {node.relative_to(store).as_posix(): hashlib.sha256(text.encode()).hexdigest()}


# The steps


def find(folder: Path) -> Callable[[], object]:
    """Recordings found (`find_recordings`)."""
    return lambda: find_recordings(manifest(), folder / "raw")


def plan(folder: Path) -> Callable[[], object]:
    """Arrays of every recording planned, none of them in the store (`sequence_jobs`)."""
    recordings = find_recordings(manifest(), folder / "raw")
    nothing_yet = Nodes(folder / "new", {})

    def planned() -> int:
        sequences = [
            sequence_jobs(folder / "raw", folder / "new", _examined(one), manifest()) for one in recordings
        ]
        return sum(not job.is_finished(nothing_yet) for sequence in sequences for job in sequence.jobs)

    return planned


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


def open_checked(folder: Path) -> Callable[[], object]:
    """Store opened, every digest and every shard's size compared (`open_store`)."""
    return lambda: open_store(folder / "store")


def open_unchecked(folder: Path) -> Callable[[], object]:
    """Store opened without looking (`open_store(check=False)`)."""
    return lambda: open_store(folder / "store", check=False)


def open_sequences(folder: Path) -> Callable[[], object]:
    """Every sequence of the open store opened (`Store.sequence`)."""
    store = open_store(folder / "store", check=False)
    return lambda: [store.sequence(*key) for key in store.sequence_keys]


def inspect(folder: Path) -> Callable[[], object]:
    """Every sequence of the open store described (`store_facts`, as `spk inspect` shows them)."""
    store = open_store(folder / "store", check=False)
    return lambda: store_facts(store)


def choose_clips(folder: Path) -> Callable[[], object]:
    """Clips of the open store listed, all its arrays opened (`ClipSource`)."""
    from pipeline.clips import ClipConfig, ClipSource  # the only step that needs torch

    store = open_store(folder / "store", check=False)
    return lambda: ClipSource(store, SPLIT, GRIDS, ClipConfig())


STEPS: tuple[Step, ...] = (
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
    items = range(TASKS["threads"])
    run = functools.partial(run_all, nothing, items, progress=no_progress, what="pieces")
    return seconds_of(lambda: run(workers=2, scheduler=None))[1] / len(items)


def on_distributed() -> float:
    from distributed import LocalCluster

    items = range(TASKS["distributed"])
    run = functools.partial(run_all, nothing, items, progress=no_progress, what="pieces")
    with LocalCluster(n_workers=2, threads_per_worker=1, processes=False, dashboard_address=None) as cluster:
        return seconds_of(lambda: run(workers=1, scheduler=cluster.scheduler_address))[1] / len(items)


if __name__ == "__main__":
    main()
