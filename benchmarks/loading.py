"""Batches of training clips, read by threads of the process or by worker processes: samples per second, and memory.

python benchmarks/loading.py [FOLDER]

Every variant runs in a process of its own, all in turns: EPOCHS epochs of batches of 4 (T = 5, 32 bins, RGB crop 256).
Memory is the largest sum, over the process and its workers, of what is not file-backed: Pss_Anon and Pss_Shmem of
/proc/PID/smaps_rollup. Worker processes are those of torch's DataLoader, over the same source.
"""

import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from benchmarks.recording import COMPRESSED_GRIDS, RAW_GRIDS, build_store
from pipeline.clips import ClipConfig, ClipSource, Sample, batches
from pipeline.store import open_store

BATCH, EPOCHS, ROUNDS = 4, 10, 3
THREADS, PROCESSES = (0, 1, 2, 4), (2, 4)


class Numbered(torch.utils.data.Dataset):
    """Batches by number, for a DataLoader."""

    def __init__(self, source: ClipSource) -> None:
        self.source = source

    def __getitem__(self, number: int) -> Sample:
        return self.source.batch(range(number * BATCH, (number + 1) * BATCH), seed=0)

    def __len__(self) -> int:
        return 1 << 30


def stream(source: ClipSource, kind: str, workers: int) -> Iterator[Sample]:
    if kind == "threads":
        return batches(source, seed=0, start_step=0, batch_size=BATCH, workers=workers)
    return iter(torch.utils.data.DataLoader(Numbered(source), batch_size=None, num_workers=workers))


def anonymous_bytes() -> int:
    """Memory of this process and its children that is not a file's, pages that are shared counted once."""
    children = Path("/proc/self/task").glob("*/children")
    processes = {"self", *itertools.chain.from_iterable(path.read_text().split() for path in children)}
    lines = [
        line.split()
        for process in processes
        for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()[1:]
    ]
    return sum(1024 * int(size) for name, size, _ in lines if name in ("Pss_Anon:", "Pss_Shmem:"))


def measure(folder: Path, grids: str, kind: str, workers: int) -> dict[str, float]:
    source = ClipSource(open_store(folder / "store"), "train", grids, ClipConfig(num_frames=5, crop=256))
    count = EPOCHS * len(source) // BATCH
    clips = stream(source, kind, workers)
    for _ in range(2 * len(source) // BATCH):
        batch = next(clips)  # start workers, map shards, verify them
    started, memory, paused = time.perf_counter(), 0, 0.0
    for number in range(count):
        batch = next(clips)
        assert len(batch.voxels) == BATCH
        if number % 8 == 0:
            looked = time.perf_counter()
            memory = max(memory, anonymous_bytes())
            paused += time.perf_counter() - looked
    seconds = time.perf_counter() - started - paused
    return {"samples_per_s": count * BATCH / seconds, "bytes": memory}


def compare(folder: Path, grids: str) -> str:
    variants = [("threads", n) for n in THREADS] + [("processes", n) for n in PROCESSES]
    found: dict[tuple[str, int], list[dict[str, float]]] = {variant: [] for variant in variants}
    for turn in range(ROUNDS):
        for kind, workers in variants[turn:] + variants[:turn]:
            command = [sys.executable, __file__, "--measure", str(folder), grids, kind, str(workers)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            found[kind, workers].append(json.loads(done.stdout))
    rates, sizes = (
        {variant: statistics.median(run[key] for run in runs) for variant, runs in found.items()}
        for key in ("samples_per_s", "bytes")
    )
    none = "threads", 0
    lines = [f"### {grids} voxel grids", "", "| workers | samples/s | over none | anonymous MB | over none |"]
    lines.append("| --- | ---: | ---: | ---: | ---: |")
    for kind, workers in variants:
        rate, size = rates[kind, workers], sizes[kind, workers]
        name = f"{workers} {kind}" if workers else "none"
        lines.append(
            f"| {name} | {rate:.0f} | {rate / rates[none]:.2f} | {size / 1e6:.0f} | {size / sizes[none]:.2f} |"
        )
    return "\n".join(lines) + "\n\n"


def main() -> None:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(sys.argv[1] if len(sys.argv) > 1 else temporary)
        if not (folder / "store").exists():
            build_store(folder, sequences=2, frames=12)
        for grids in (RAW_GRIDS, COMPRESSED_GRIDS):
            sys.stdout.write(compare(folder, grids))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        folder, grids, kind, workers = sys.argv[2:]
        sys.stdout.write(json.dumps(measure(Path(folder), grids, kind, int(workers))))
    else:
        main()
