"""What the spikes are worth on generated scenes, over three seeds, and whether the network really uses them.

python benchmarks/advantage.py [SEEDS] [KEY=VALUE]...

For each seed, scenes are filmed anew and two networks of the preset `tiny`, changed by key=value, are trained on them
side by side, with spikes and without, as `spk demo` does. Each then restores test sequences that no training saw. The
network with spikes does so three times: with its spikes, with none (all counts zero), and with those of another
sequence. If the advantage over the network without spikes is due to the spikes, it is gone in the last two.

An advantage is a difference of mean PSNR (rgb8-all) on the same frames. Its 95 % confidence interval over the seeds is
Student's: mean +- t(0.975, n - 1) * s / sqrt(n). It exits with 1 if that of the advantage does not lie above 0, or if
the spikes of another sequence, or none, leave any of it.
"""

import math
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from cli.presets import config_path
from cli.side_by_side import train_side_by_side
from model.evaluation.config import EvaluateConfig
from model.metrics import psnr, to_rgb8
from model.parallel import ParallelConfig, parallel
from model.restorer import Restorer, load_restorer
from model.tiling import restore_tiled
from pipeline.ablations import Shuffle, Zero
from pipeline.ingest import ingest
from pipeline.manifest import read_manifest
from pipeline.reports import no_progress
from pipeline.simulate import simulate_scenes
from pipeline.simulation.scenes import SceneConfig
from pipeline.store import Sequence, open_store
from pipeline.voxelize import voxelize

SEEDS = 3
BINS, GRIDS = 16, "k16"
STUDENT_T = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 7: 2.447, 8: 2.365}
"""The 97.5 % quantile of Student's distribution with n - 1 degrees of freedom, by n."""
FUSED, RGB_ONLY = "fused", "rgb_only"
METHODS = ("blurry", RGB_ONLY, FUSED, "no spikes", "spikes of another sequence")


def main() -> None:
    seeds = range(int(sys.argv[1]) if len(sys.argv) > 1 else SEEDS)
    found = []
    with tempfile.TemporaryDirectory() as temporary:
        for seed in seeds:
            found.append(measure(Path(temporary) / str(seed), seed, sys.argv[2:]))
            sys.stderr.write(f"seed {seed}: {found[-1]}\n")
    over = {name: [one[name] - one[RGB_ONLY] for one in found] for name in METHODS}
    lines = [
        "| method | " + " | ".join(f"seed {seed}, dB" for seed in seeds) + " | over RGB only, 95 % interval |"
    ]
    lines.append("| --- |" + " ---: |" * (len(found) + 1))
    for name in METHODS:
        cells = " | ".join(f"{one[name]:.2f}" for one in found)
        low, high = interval(over[name])
        lines.append(f"| {name} | {cells} | {statistics.mean(over[name]):+.2f} [{low:+.2f}, {high:+.2f}] |")
    sys.stdout.write("\n".join(lines) + "\n")
    if interval(over[FUSED])[0] <= 0:
        sys.exit("the advantage over RGB only is not shown")
    if any(statistics.mean(over[name]) > 0 for name in METHODS[3:]):
        sys.exit("an advantage remains without the right spikes")


def interval(differences: list[float]) -> tuple[float, float]:
    """The 95 % confidence interval of the mean."""
    half = STUDENT_T[len(differences)] * statistics.stdev(differences) / math.sqrt(len(differences))
    return statistics.mean(differences) - half, statistics.mean(differences) + half


def measure(folder: Path, seed: int, overrides: list[str]) -> dict[str, float]:
    """Mean PSNR over the test frames, by method."""
    simulate_scenes(folder / "raw", SceneConfig(), seed=seed, workers=2)
    store = folder / "store"
    ingest(folder / "raw", store, read_manifest("simulated"), workers=2)
    voxelize(store, num_bins=BINS, name=GRIDS, workers=2)
    settings = [str(config_path(Path("tiny"))), f"store={store}", f"seed={seed}", *overrides]
    runs = {folder / FUSED: settings, folder / RGB_ONLY: [*settings, "network.fusion=none"]}
    if not train_side_by_side(runs, 1, no_progress):
        raise KeyboardInterrupt
    with parallel(ParallelConfig(device="cpu")) as place:
        fused, rgb_only = (load_restorer(folder / name, place) for name in (FUSED, RGB_ONLY))
    scores: dict[str, list[float]] = {name: [] for name in METHODS}
    sequences = open_store(store).sequences("test")
    for sequence in sequences:
        none, others = (change.of(sequence, GRIDS, sequences).grids for change in (Zero(), Shuffle()))
        restored = {
            "blurry": torch.tensor(sequence.blurry[:]),
            RGB_ONLY: restore(rgb_only, sequence, None),
            FUSED: restore(fused, sequence, sequence.voxels(GRIDS)),
            "no spikes": restore(fused, sequence, none),
            "spikes of another sequence": restore(fused, sequence, others),
        }
        sharp = torch.tensor(sequence.sharp[:])
        for name, frames in restored.items():
            scores[name] += psnr(frames, sharp).tolist()
    return {name: statistics.mean(values) for name, values in scores.items()}


def restore(restorer: Restorer, sequence: Sequence, voxels: Any) -> torch.Tensor:
    """All frames of a sequence, uint8 (N, 3, H, W), cut as `spk evaluate` cuts them."""
    tiling = EvaluateConfig().tiling(restorer.num_frames)
    place = restorer.place.device
    frames = [
        frame
        for run in sequence.runs
        for frame in restore_tiled(restorer, sequence.blurry, voxels, tiling, span=run, scale=1, device=place)
    ]
    return torch.stack([to_rgb8(frame) for frame in frames])


if __name__ == "__main__":
    main()
