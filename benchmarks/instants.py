"""Can a network restore other instants of the exposure than the middle, and does it do so because it is told which?

python benchmarks/instants.py [KEY=VALUE]...

Two networks of the preset `tiny`, changed by key=value, are trained side by side on the same generated scenes: one on
sharp frames at any instant of the exposure, which it is told; one on sharp frames at the middle, as networks usually
are. Test sequences that no training saw have their sharp frames filmed at several instants. The first network restores
them twice: told the right instant, and told the middle. Each figure is a mean PSNR (rgb8-all) over the same frames.

It exits with 1 if away from the middle the right instant is not worth more than the middle, the network of the middle,
the blurry frame and the analytic estimate from the spikes.
"""

import statistics
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from torch import Tensor

from cli.presets import config_path
from cli.side_by_side import train_side_by_side
from model.evaluation.baselines import spike_only
from model.evaluation.config import EvaluateConfig
from model.metrics import psnr, to_rgb8
from model.parallel import ParallelConfig, parallel
from model.restorer import Restorer, load_restorer
from model.tiling import restore_tiled
from pipeline.clips import sharp_instants
from pipeline.ingest import ingest
from pipeline.manifest import read_manifest
from pipeline.reports import no_progress
from pipeline.simulate import simulate_scenes
from pipeline.simulation.rig import RigConfig
from pipeline.simulation.scenes import SceneConfig
from pipeline.store import Sequence, open_store
from pipeline.voxelize import voxelize
from pipeline.voxels import frames_per_bin

BINS, GRIDS = 16, "k16"
INSTANTS = (0.1, 0.25, 0.5, 0.75, 0.9)
SEED = 0
TOLD, MIDDLE = "told the instant", "trained at the middle"
METHODS = ("blurry", "spike_only", MIDDLE, "told the middle", TOLD)


def main() -> None:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        runs = {folder / "told": ["network.instants=true"], folder / "middle": []}
        stores = {
            folder / "told": film(folder / "any", (0.0, 1.0)),
            folder / "middle": film(folder / "at_middle", None),
        }
        preset = str(config_path(Path("tiny")))
        arguments = {
            run: [preset, f"store={stores[run]}", f"seed={SEED}", *settings, *sys.argv[1:]]
            for run, settings in runs.items()
        }
        if not train_side_by_side(arguments, 1, no_progress):
            raise KeyboardInterrupt
        with parallel(ParallelConfig(device="cpu")) as place:
            told, middle = (load_restorer(run, place) for run in runs)
        tests = {at: film(folder / f"test_{at}", (at, at), train=1, val=0) for at in INSTANTS}
        scores = {at: measure(store, told, middle) for at, store in tests.items()}
    lines = ["| PSNR in dB at | " + " | ".join(f"{at:g}" for at in INSTANTS) + " |"]
    lines.append("| --- |" + " ---: |" * len(INSTANTS))
    for name in METHODS:
        lines.append(f"| {name} | " + " | ".join(f"{scores[at][name]:.2f}" for at in INSTANTS) + " |")
    for name in METHODS[:-1]:
        gains = [scores[at][TOLD] - scores[at][name] for at in INSTANTS]
        lines.append(f"| {TOLD} over {name} | " + " | ".join(f"{gain:+.2f}" for gain in gains) + " |")
    sys.stdout.write("\n".join(lines) + "\n")
    far = (min(INSTANTS), max(INSTANTS))
    if worse := [
        f"{name} at {at}" for at in far for name in METHODS[:-1] if scores[at][name] >= scores[at][TOLD]
    ]:
        sys.exit(f"told the right instant it is no better than {', '.join(worse)}")


def film(folder: Path, sharp_at: tuple[float, float] | None, **changes: int) -> Path:
    """A store of generated scenes, the same whatever `sharp_at` is but for the sharp frames."""
    raw, store = folder / "raw", folder / "store"
    simulate_scenes(raw, SceneConfig(rig=RigConfig(sharp_at=sharp_at), **changes), seed=SEED)
    ingest(raw, store, read_manifest("simulated"), workers=1)
    voxelize(store, num_bins=BINS, name=GRIDS, workers=1)
    return store


def measure(store: Path, told: Restorer, middle: Restorer) -> dict[str, float]:
    """Mean PSNR over the test frames, by method."""
    scores: dict[str, list[float]] = {name: [] for name in METHODS}
    for sequence in open_store(store).sequences("test"):
        instants = torch.from_numpy(sharp_instants(sequence))
        restored = {
            "blurry": torch.tensor(sequence.blurry[:]),
            "spike_only": torch.stack(list(estimates(sequence, instants))),
            MIDDLE: restore(middle, sequence, None),
            "told the middle": restore(told, sequence, torch.full_like(instants, 0.5)),
            TOLD: restore(told, sequence, instants),
        }
        sharp = torch.tensor(sequence.sharp[:])
        for name, frames in restored.items():
            scores[name] += psnr(frames, sharp).tolist()
    return {name: statistics.mean(values) for name, values in scores.items()}


def estimates(sequence: Sequence, instants: Tensor) -> Iterator[Tensor]:
    """What the spikes give without learning, uint8 (3, H, W) of each frame."""
    for index, (start, stop) in enumerate(sequence.exposure.tolist()):
        bins = frames_per_bin(stop - start, BINS).tolist()
        blurry, counts = (torch.tensor(of[index]) for of in (sequence.blurry, sequence.voxels(GRIDS)))
        yield to_rgb8(spike_only(blurry, counts, bins, instants[index].item() * (stop - start), 1))


@torch.inference_mode()
def restore(restorer: Restorer, sequence: Sequence, instants: Tensor | None) -> Tensor:
    """All frames of a sequence, uint8 (N, 3, H, W), cut as `spk evaluate` cuts them."""
    tiling = EvaluateConfig().tiling(restorer.num_frames)
    frames = restore_tiled(restorer, sequence.blurry, sequence.voxels(GRIDS), tiling, instants=instants)
    return torch.stack([to_rgb8(frame) for frame in frames])


if __name__ == "__main__":
    main()
