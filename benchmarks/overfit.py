"""Can the network learn one clip by heart? PSNR against steps, with spikes and without, in one run.

python benchmarks/overfit.py [KEY=VALUE]...

The preset `tiny`, changed by key=value, on a store of one generated clip: two frames of 48x48, always the same crop,
nothing turned. A network that cannot reach 40 dB here has a fault in its gradients, its normalization or its schedule,
whatever it does elsewhere. It exits with 1 if the network with spikes stays below.
"""

import json
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from cli.presets import config_path
from cli.side_by_side import train_side_by_side
from model.metrics import psnr, to_rgb8
from model.parallel import ParallelConfig, parallel
from model.restorer import load_restorer
from pipeline.clips import ClipConfig, ClipSource
from pipeline.config import from_overrides
from pipeline.ingest import ingest
from pipeline.manifest import read_manifest
from pipeline.reports import no_progress
from pipeline.simulate import simulate_scenes
from pipeline.simulation.scenes import SceneConfig
from pipeline.store import open_store
from pipeline.voxelize import voxelize

WANTED_DB = 40.0
SIDE, FRAMES, BINS, GRIDS = 48, 2, 16, "k16"
SCENE = ("train=1", "val=0", "test=0", f"height={SIDE}", f"width={SIDE}", f"rig.num_frames={FRAMES}")
CLIP = {"num_frames": FRAMES, "crop": SIDE, "flips": False, "rotations": False, "time_reversal": False}
SETTINGS = (
    *("steps=1500", "batch_size=1", "workers=0", "optim.lr=3.0e-3", "optim.warmup_steps=100"),
    *("optim.ema_decay=0.99", "log_every=1", "validate_every=0", "sample_every=0"),
)
NETWORKS = {"with spikes": "cross_attention", "RGB only": "none"}


def main() -> None:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        simulate_scenes(folder / "raw", from_overrides(SceneConfig, SCENE), seed=0)
        ingest(folder / "raw", folder / "store", read_manifest("simulated"))
        voxelize(folder / "store", num_bins=BINS, name=GRIDS)
        runs = {folder / name: settings(folder / "store", fusion) for name, fusion in NETWORKS.items()}
        if not train_side_by_side(runs, 1, no_progress):
            raise KeyboardInterrupt
        source = ClipSource(open_store(folder / "store"), "train", GRIDS, ClipConfig(**CLIP))
        assert len(source) == 1
        blurry, _, sharp, _ = clip = source.batch(range(1), seed=0)
        lines = [f"### One clip by heart: blurry {psnr(blurry[0], sharp[0]).mean().item():.2f} dB", ""]
        lines += [
            "| network | PSNR dB | loss after a tenth | a third | all steps |",
            "| --- |" + " ---: |" * 4,
        ]
        reached = {name: score(run, clip) for name, run in zip(NETWORKS, runs, strict=True)}
        for name, run in zip(NETWORKS, runs, strict=True):
            losses = " | ".join(f"{loss:.5f}" for loss in losses_of(run))
            lines.append(f"| {name} | {reached[name]:.2f} | {losses} |")
    sys.stdout.write("\n".join(lines) + "\n")
    if reached["with spikes"] < WANTED_DB:
        sys.exit(f"the network with spikes stays below {WANTED_DB:g} dB")


def settings(store: Path, fusion: str) -> list[str]:
    clip = [f"clip.{name}={json.dumps(value)}" for name, value in CLIP.items()]
    given = [f"store={store}", f"network.fusion={fusion}", *sys.argv[1:]]
    return [str(config_path(Path("tiny"))), *SETTINGS, *clip, *given]


def score(run: Path, clip: tuple[torch.Tensor, ...]) -> float:
    """PSNR (rgb8-all) of what the averaged weights make of the clip."""
    blurry, voxels, sharp, _ = clip
    with parallel(ParallelConfig(device="cpu")) as place, torch.no_grad():
        restored = load_restorer(run, place)(blurry, voxels)
    return psnr(to_rgb8(restored[0]), sharp[0]).mean().item()


def losses_of(run: Path) -> list[float]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [lines[len(lines) * share // 30 - 1]["loss"] for share in (3, 10, 30)]


if __name__ == "__main__":
    main()
