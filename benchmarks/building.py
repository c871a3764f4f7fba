"""Building a store: ingest and voxelize against writing alone, against float32 files, and against zarr-python.

python benchmarks/building.py [FOLDER]

Recordings of an integrate-and-fire camera that films light drifting over a picture (15 % of the pixels fire in a spike
frame), one exposure after the other, lie in the page cache. There is no RGB camera: ingest checks the recordings,
copies their spikes, and makes grey frames of them. All variants write durably below FOLDER, which is a temporary one
if it is not given.

- *encode and write alone*: the chunks of the finished store, in memory, encoded, checksummed and written as ours are;
  once those of the grids, which is all that voxelize writes, and once those of every array.
- *event list*: unpacked, one event after the other added with np.add.at, log1p, one float32 .npy per frame.
- *numpy and zarr-python*: unpacked and summed per bin, np.bincount; the same shards, chunks and codec by zarr-python.
"""

import argparse
import itertools
import logging
import math
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.rounds import medians, table
from benchmarks.voxel_kernel import NUM_BINS, event_list, unpack_per_bin
from pipeline.config import build
from pipeline.dat import open_spikes, write_dat
from pipeline.ingest import ingest
from pipeline.manifest import Manifest
from pipeline.simulation.camera import Sensor, SpikeCamera
from pipeline.spike_format import SpikeFormat
from pipeline.stats import CountTally
from pipeline.storage.mapped import MappedArray
from pipeline.storage.shards import ArrayLayout, Region, compressor, crc32c_bytes, write_chunks
from pipeline.store import open_store
from pipeline.voxelize import voxelize

SIZES = ((88, 360, 640, 1920), (202, 250, 400, 20_000))
"""Spike frames of an exposure, height, width, spike frames per second."""
SEQUENCES, EXPOSURES = 4, 12
SHARE = 4
"""Of the recordings, one in so many is enough to time the slow ways by."""
ROUNDS = 5
EVENTS, ZARR = "event list, np.add.at, float32 .npy", "numpy and zarr-python"


def manifest_of(window: int, height: int, width: int, rate_hz: int) -> Manifest:
    """Spikes alone: one exposure after the other, without a gap."""
    values = {
        "name": "benchmark",
        "layout": {"spikes": "{split}/{sequence}/spikes.dat"},
        "spikes": {"height": height, "width": width, "rate_hz": rate_hz},
        "exposure": {"rule": "every", "window": window},
        "blurry_from_spikes": 2.0,
        "splits": {"train": {}},
    }
    return build(Manifest, values, "benchmark")


def record(raw: Path, manifest: Manifest, sequences: int, exposures: int) -> None:
    """Film waves of light that drift over a still picture, a few spike frames at a time."""
    fmt = SpikeFormat(**{key: getattr(manifest.spikes, key) for key in ("height", "width", "rate_hz")})
    row, column = np.mgrid[: fmt.height, : fmt.width].astype(np.float32)
    total = manifest.exposure.window * exposures
    for number in range(sequences):
        rng = np.random.default_rng(number)
        still = 0.3 + 0.15 * np.sin(column / 80 + number) * np.cos(row / 60)

        def light(first: int, last: int, still: np.ndarray = still, turn: int = 2 * number):
            for t in range(first, last):
                waves = np.sin(column / 31 + t / 60 + turn) * np.cos(row / 23 - t / 90)
                yield still + 0.12 * waves

        sensor = Sensor(SpikeCamera(), (fmt.height, fmt.width), rng)
        starts = range(0, total, 64)
        blocks = (sensor.integrate(np.stack([*light(a, min(a + 64, total))])) for a in starts)
        write_dat(raw / "train" / f"{number:04d}" / "spikes.dat", blocks, fmt)


def our_store(raw: Path, out: Path, manifest: Manifest, codec: str, workers: int = 1) -> None:
    ingest(raw, out, manifest, workers=workers)
    voxelize(out, num_bins=NUM_BINS, codec=codec, workers=workers)


@dataclass(frozen=True)
class Finished:
    """An array of a store, as the chunks it was made of, where they lie as they are written."""

    name: str
    layout: ArrayLayout
    chunks: dict[Region, np.ndarray]

    @staticmethod
    def read(array: MappedArray, name: str) -> "Finished":
        layout, values = array.layout, array[:]
        parts = [part for shard in layout.shards() for _, part in layout.parts(shard)]
        return Finished(name, layout, {_key(part): np.ascontiguousarray(values[part]) for part in parts})


def encode_and_write(out: Path, arrays: Iterable[Finished]) -> None:
    for one in arrays:
        for shard in one.layout.shards():
            write_chunks(out / one.name, one.layout, shard, lambda part, c=one.chunks: c[_key(part)])


def event_files(raw: Path, out: Path, manifest: Manifest, fmt: SpikeFormat) -> None:
    """Of one in `SHARE` recordings: it takes long."""
    for path in sorted(raw.rglob("*.dat"))[::SHARE]:
        stream, window = open_spikes(path, fmt), manifest.exposure.window
        (out / path.parent.name).mkdir(parents=True)
        for first in range(0, len(stream), window):
            counts = np.log1p(event_list(stream.packed(first, first + window), fmt.width))
            with (out / path.parent.name / f"{first:06d}.npy").open("wb") as file:
                np.save(file, counts)
                os.fsync(file.fileno())


def zarr_store(raw: Path, out: Path, manifest: Manifest, fmt: SpikeFormat, layout) -> np.ndarray:
    """Of one in `SHARE` recordings, and their histogram."""
    import zarr
    from zarr.codecs import BloscCodec

    none = layout.codec == "none"
    codecs = None if none else BloscCodec(cname=layout.codec, clevel=5, shuffle="bitshuffle", typesize=1)
    histogram = np.zeros(256, np.int64)
    for path in sorted(raw.rglob("*.dat"))[::SHARE]:
        stream, window = open_spikes(path, fmt), manifest.exposure.window
        array = zarr.create_array(
            out / path.parent.name,
            shape=layout.shape,
            shards=layout.shard,
            chunks=layout.chunk,
            dtype="uint8",
            compressors=codecs,
            config={"write_empty_chunks": True},
        )
        firsts = range(0, len(stream), window)
        counts = np.stack([unpack_per_bin(stream.packed(a, a + window), fmt.width) for a in firsts])
        histogram += np.bincount(counts.ravel(), minlength=256)
        array[:] = counts
        for file in (out / path.parent.name).rglob("c/**/*"):
            if file.is_file():
                with file.open("rb") as opened:
                    os.fsync(opened.fileno())
    return histogram


def statistics_share(grids: Iterable[Finished], window: int) -> float:
    """CPU time of the exact histogram over that of encoding and checksums, chunk by chunk, each fresh in the cache."""
    tally = CountTally(-(-window // NUM_BINS))
    spent = {"statistics": 0.0, "encode": 0.0}
    for grid in grids:
        encoder = compressor(grid.layout.codec)
        for chunk in grid.chunks.values():
            values = chunk.copy()
            started = time.process_time()
            tally.add(values)
            counted = time.process_time()
            crc32c_bytes(encoder.encode(values))
            spent["statistics"] += counted - started
            spent["encode"] += time.process_time() - counted
    return spent["statistics"] / spent["encode"]


def _key(part: tuple[slice, ...]) -> tuple[tuple[int, int], ...]:
    return tuple((p.start, p.stop) for p in part)


def compare(folder: Path, codec: str, window: int, height: int, width: int, rate_hz: int) -> None:
    manifest = manifest_of(window, height, width, rate_hz)
    fmt = SpikeFormat(height=height, width=width, rate_hz=rate_hz)
    raw, scratch = folder / "raw", folder / "scratch"
    record(raw, manifest, SEQUENCES, EXPOSURES)
    ingest(raw, folder / "ingested", manifest)
    our_store(raw, folder / "store", manifest, codec)
    store = open_store(folder / "store")
    name, grids, others = f"k{NUM_BINS}", [], []
    for sequence in store.sequences("train"):
        grids.append(Finished.read(sequence.voxels(name), f"{sequence.name}/{name}"))
        for kind in ("spikes", "blurry"):
            others.append(Finished.read(getattr(sequence, kind), f"{sequence.name}/{kind}"))
    layout = grids[0].layout
    values = sum(math.prod(grid.layout.shape) for grid in grids)
    plain = sum(np.bincount(chunk.ravel(), minlength=256) for chunk in grids[0].chunks.values())
    numbers = itertools.count()

    def new() -> Path:
        path = scratch / str(next(numbers))
        path.mkdir(parents=True)
        return path

    def prepare() -> None:
        """No variant has to tidy up, or begins, after another: the ingested store is linked anew for each."""
        shutil.rmtree(scratch, ignore_errors=True)
        shutil.copytree(folder / "ingested", scratch / "ingested", copy_function=os.link)

    def add_voxels() -> None:
        voxelize(scratch / "ingested", num_bins=NUM_BINS, codec=codec, workers=1)

    assert np.array_equal(zarr_store(raw, new(), manifest, fmt, layout), plain)
    variants = {
        "voxelize": add_voxels,
        "ingest and voxelize": lambda: our_store(raw, new() / "store", manifest, codec),
        "encode and write the grids alone": lambda: encode_and_write(new(), grids),
        "encode and write every array alone": lambda: encode_and_write(new(), grids + others),
        EVENTS: lambda: event_files(raw, new(), manifest, fmt),
        ZARR: lambda: zarr_store(raw, new(), manifest, fmt, layout),
    }
    prepare()
    seconds = medians(variants, ROUNDS, tidy=prepare)
    seconds |= {name: SHARE * seconds[name] for name in (EVENTS, ZARR)}
    title = f"{values / 1e6:.0f} MB of counts, {window} frames of {height}x{width} each, codec {codec}"
    sys.stdout.write(table(title, seconds, "voxelize"))
    alone, both = seconds["voxelize"], seconds["ingest and voxelize"]
    sys.stdout.write(
        f"\nvoxelize: {seconds['encode and write the grids alone'] / alone:.2f} of the speed of encode and write;"
        f" {seconds[EVENTS] / alone:.0f}x the event list, {seconds[ZARR] / alone:.1f}x zarr-python.\n"
        f"Ingest and voxelize: {seconds['encode and write every array alone'] / both:.2f} of encode and write;"
        f" {seconds[EVENTS] / both:.0f}x the event list, {seconds[ZARR] / both:.1f}x zarr-python.\n"
    )
    if codec != "none":
        sys.stdout.write(f"Statistics: {statistics_share(grids, window):.3f} of the encode.\n")
    sys.stdout.write("\n")
    sys.stdout.flush()


def compare_workers(folder: Path) -> None:
    """Wall time of one worker over that of two: the machine must have two cores that nothing else uses."""
    manifest = manifest_of(*SIZES[0])
    record(folder / "raw", manifest, SEQUENCES, EXPOSURES)
    ingest(folder / "raw", folder / "store", manifest)

    def run(workers: int) -> None:
        voxelize(folder / "store", num_bins=NUM_BINS, codec="lz4", workers=workers, overwrite=True)

    seconds = medians({"1": lambda: run(1), "2": lambda: run(2)}, ROUNDS, clock=time.perf_counter)
    load = os.getloadavg()[0]
    sys.stdout.write(
        f"Two workers: {seconds['1'] / seconds['2']:.2f}x one, by wall time; the system's load was {load:.1f}\n\n"
    )


def compare_memory(folder: Path) -> None:
    """Peak memory of building, in a process of its own, by the length and the number of recordings."""
    sys.stdout.write("### Peak memory, MB\n\n| recordings | exposures each | anonymous | with maps |\n")
    sys.stdout.write("| ---: | ---: | ---: | ---: |\n")
    manifest = manifest_of(*SIZES[0])
    for sequences, exposures in ((1, 4), (1, 32), (8, 4)):
        raw = folder / f"raw-{sequences}-{exposures}"
        record(raw, manifest, sequences, exposures)
        command = [sys.executable, __file__, "--memory", str(raw), str(raw) + ".store"]
        found = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
        sys.stdout.write(f"| {sequences} | {exposures} | {found[0]} | {found[1]} |\n")


def tell_memory(raw: Path, out: Path) -> None:
    """Build a store and print the most anonymous and the most resident memory of this process on the way."""
    peaks = SimpleNamespace(anonymous=0, stop=False)

    def watch() -> None:
        while not peaks.stop:
            status = Path("/proc/self/status").read_text()
            peaks.anonymous = max(peaks.anonymous, int(status.split("RssAnon:")[1].split()[0]))
            time.sleep(0.002)

    watcher = threading.Thread(target=watch)
    watcher.start()
    our_store(raw, out, manifest_of(*SIZES[0]), "lz4", workers=2)
    peaks.stop = True
    watcher.join()
    resident = int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
    sys.stdout.write(f"{peaks.anonymous / 1e3:.0f} {resident / 1e3:.0f}\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", nargs="?", help="where to write; the system's temporary folder")
    parser.add_argument("--memory", nargs=2, type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    if options.memory:
        tell_memory(*options.memory)
        return
    for size, codec in itertools.product(SIZES, ("none", "lz4")):
        with tempfile.TemporaryDirectory(dir=options.folder) as name:
            compare(Path(name), codec, *size)
    for job in (compare_workers, compare_memory):
        with tempfile.TemporaryDirectory(dir=options.folder) as name:
            job(Path(name))


if __name__ == "__main__":
    main()
