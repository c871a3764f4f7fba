"""Restoring a user's own files against restoring the same frames from a store; and memory against length.

Run: python benchmarks/deblurring.py [SIDE]

Each measurement is a process of its own, with one thread, on the preset `tiny` with random weights: it restores all
frames of a recording to bytes, and tells frames per second of CPU time, its peak memory, and that over what it held
before the first frame.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from cli.presets import config_path
from model.checkpoint_file import save_checkpoint
from model.deblurring.frames import restored_frames
from model.metrics import to_rgb8
from model.network import build_network
from model.parallel import Parallel
from model.repeatable import inference
from model.restorer import load_restorer
from model.tiling import Tiling, restore_tiled
from model.training.config import TrainConfig
from pipeline.config import from_overrides, load_config, to_plain
from pipeline.ingest import ingest
from pipeline.machine import peak_memory_bytes
from pipeline.manifest import read_manifest
from pipeline.own_recording import open_own_recording
from pipeline.own_settings import OwnFiles
from pipeline.simulate import simulate_scenes
from pipeline.simulation.scenes import SceneConfig
from pipeline.stats import Normalization
from pipeline.store import open_store
from pipeline.voxelize import voxelize

LENGTHS = (20, 200)
BINS = 16
TILING = Tiling(num_frames=5, overlap_frames=2)


def main(side: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        save_network(place / "network.safetensors")
        for length in LENGTHS:
            make(place / str(length), length, side)
        measured = {
            (source, length): run(place, source, length)
            for length in LENGTHS
            for source in ("store", "files")
        }
    lines = [
        f"{source} {length:4d} frames of {side}x{side}: {fps:.3f} frames a CPU second,"
        f" peak {peak / 1e6:.1f} MB, {grown / 1e6:.1f} MB above the start"
        for (source, length), (fps, grown, peak) in measured.items()
    ]
    short, long = LENGTHS
    ratio = measured["files", long][0] / measured["store", long][0]
    grown = measured["files", long][2] - measured["files", short][2]
    lines.append(f"own files / store: {ratio:.3f}; {long} frames instead of {short}: {grown / 1e6:+.1f} MB")
    sys.stdout.write("\n".join(lines) + "\n")


def make(folder: Path, length: int, side: int) -> None:
    """A recording of `length` frames, as files and as a store."""
    rig = [f"rig.num_frames={length}", "rig.exposure_frames=32", "rig.gap_frames=8"]
    settings = ["train=1", "val=0", "test=1", f"height={side}", f"width={side}", *rig]
    simulate_scenes(folder / "raw", from_overrides(SceneConfig, settings))
    ingest(folder / "raw", folder / "store", read_manifest("simulated"), workers=1)
    voxelize(folder / "store", num_bins=BINS, workers=1)


def save_network(path: Path) -> None:
    config = load_config(TrainConfig, config_path(Path("tiny")), ["store=none"]).network
    torch.manual_seed(0)
    header = {
        "step": 0,
        "config": {"network": to_plain(config), "clip": {"num_frames": TILING.num_frames}},
        "num_bins": BINS,
        "normalization": to_plain(
            Normalization(num_bins=BINS, transform="count", mean=0.5, std=1.0, num_values=9)
        ),
    }
    weights = build_network(config, BINS).state_dict()
    save_checkpoint(path, {f"model.{name}": value for name, value in weights.items()}, header)


def run(place: Path, source: str, length: int) -> tuple[float, int, int]:
    """Frames per second, growth of the peak after the first clip, and the peak, of a process that restores."""
    command = [sys.executable, __file__, "--restore", str(place), source, str(length)]
    done = subprocess.run(
        command, check=True, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    return tuple(json.loads(done.stdout))


def restore(place: Path, source: str, length: int) -> None:
    restorer = load_restorer(place / "network.safetensors", Parallel(device=torch.device("cpu")))
    folder = place / str(length)
    if source == "files":
        raw = folder / "raw" / "test" / "test_0000"
        files = {"video": raw / "blurry", "spikes": raw / "spikes.dat", "log": raw / "exposures.csv"}
        recording = open_own_recording(OwnFiles(**files, manifest="simulated"))
        frames = restored_frames(recording, restorer, TILING)
    else:
        sequence = open_store(folder / "store").sequence("test", "test_0000")
        restored = restore_tiled(restorer, sequence.blurry, sequence.voxels(f"k{BINS}"), TILING)
        frames = (to_rgb8(frame).numpy() for frame in restored)
    before, count = peak_memory_bytes(), 0
    with inference():
        next(frames)  # compiles the kernel that counts
        started = time.process_time()
        for _ in frames:
            count += 1
        seconds = time.process_time() - started
    sys.stdout.write(json.dumps([count / seconds, peak_memory_bytes() - before, peak_memory_bytes()]))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--restore"]:
        restore(Path(sys.argv[2]), sys.argv[3], int(sys.argv[4]))
    else:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else 64)
