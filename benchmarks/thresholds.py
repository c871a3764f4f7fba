"""What a network restores when the spike camera's threshold is not the one it was trained with.

python benchmarks/thresholds.py [FOLDER] [KEY=VALUE ...]

The demo's scenes are filmed with thresholds 1, 2 and 4; the demo's network is trained on the recordings with
threshold 1 alone, as they are and with `clip.spikes.thresholds=[1,2,4]`, and each is evaluated on the unseen scenes of
all three. Overrides are of the training config. Takes minutes on a CPU; in the same FOLDER it goes on where it stopped.
"""

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from cli.presets import config_path
from model.evaluate import evaluate
from model.train import train
from model.training.config import TrainConfig
from pipeline.config import from_overrides, load_config
from pipeline.ingest import ingest
from pipeline.manifest import read_manifest
from pipeline.simulate import simulate_scenes
from pipeline.simulation.scenes import SceneConfig
from pipeline.voxelize import voxelize

THRESHOLDS = (1, 2, 4)
NUM_BINS = 16
VARIANTS = {"as recorded": (1,), f"thresholds {list(THRESHOLDS)}": THRESHOLDS}


def main() -> None:
    arguments = sys.argv[1:]
    overrides = [text for text in arguments if "=" in text]
    folders = [text for text in arguments if "=" not in text]
    with tempfile.TemporaryDirectory() as temporary:
        sys.stdout.write(measure(Path(folders[0] if folders else temporary), overrides))


def measure(folder: Path, overrides: Sequence[str]) -> str:
    """A Markdown table: PSNR in dB by training and by the threshold of the recordings that are restored."""
    stores = {threshold: make_store(folder / f"threshold_{threshold}", threshold) for threshold in THRESHOLDS}
    rows = {}
    for name, thresholds in VARIANTS.items():
        run = folder / "runs" / f"{len(thresholds)} thresholds"
        settings = [f"store={str(stores[1])!r}", f"clip.spikes.thresholds={list(thresholds)}", *overrides]
        config = load_config(TrainConfig, config_path(Path("tiny")), settings)
        train(config, run, resume=run.is_dir())
        results = {}
        for threshold, store in stores.items():
            report = evaluate(run, store, run / "eval" / f"threshold_{threshold}")
            results[threshold] = {row["name"]: row["psnr"] for row in report.rows}
        rows[name] = [results[threshold]["restored"] for threshold in THRESHOLDS]
        blurry = [results[threshold]["blurry"] for threshold in THRESHOLDS]
    lines = ["| trained on threshold 1 | " + " | ".join(f"restoring {t}" for t in THRESHOLDS) + " |"]
    lines += ["| --- |" + " ---: |" * len(THRESHOLDS)]
    for name, values in {**rows, "(blurry frames)": blurry}.items():
        lines.append(f"| {name} | " + " | ".join(f"{value:.2f}" for value in values) + " |")
    return "\n".join(lines) + "\n"


def make_store(folder: Path, threshold: int) -> Path:
    """The demo's scenes as a camera with that threshold sees them."""
    store = folder / "store"
    simulate_scenes(folder / "raw", from_overrides(SceneConfig, [f"rig.camera.threshold={threshold}"]))
    ingest(folder / "raw", store, read_manifest("simulated"), workers=1)
    voxelize(store, num_bins=NUM_BINS, workers=1)
    return store


if __name__ == "__main__":
    main()
