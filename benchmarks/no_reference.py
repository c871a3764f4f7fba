"""Whether the scores that need no sharp frame rank frames as the true PSNR does.

python benchmarks/no_reference.py [STORE] [NAME=CHECKPOINT]...

Every test frame of the store (without one: of scenes filmed as in `spk demo`) is spoiled in several ways, and restored
by the named networks. All of them are scored by the protocol `no-reference` and by their PSNR to the sharp frame.
Printed are the means, and Spearman's correlation of each score with PSNR over the variants of a frame: its mean over
the frames, for all variants, without the analytic estimate (which follows the spikes by construction), and for the
sharp frame, the networks and the blurry input alone. It exits with 1 if `spikes` does not rank by PSNR, or is not about
1 for sharp frames.
"""

import math
import statistics
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from model.evaluation.baselines import spike_only
from model.evaluation.config import EvaluateConfig
from model.evaluation.no_reference import psnr_reblur, spike_agreement
from model.evaluation.shots import Candidate, Shot
from model.metrics import psnr, to_rgb8
from model.normalize import to_unit
from model.parallel import ParallelConfig, parallel
from model.restorer import Restorer, load_restorer
from model.tiling import restore_tiled
from pipeline.config import from_overrides
from pipeline.ingest import ingest
from pipeline.manifest import read_manifest
from pipeline.simulate import simulate_scenes
from pipeline.simulation.scenes import SceneConfig
from pipeline.store import Sequence, open_store
from pipeline.voxelize import voxelize
from pipeline.voxels import frames_per_bin

MEASURES = {"reblur": psnr_reblur, "spikes": spike_agreement}
SHARP, BLURRY, ESTIMATE = "sharp", "blurry", "spike_only"
LEAST_RANK = 0.8
SHARP_SPIKES = (0.85, 1.15)


def main() -> None:
    stores = [Path(text) for text in sys.argv[1:] if "=" not in text]
    paths = dict(text.split("=", 1) for text in sys.argv[1:] if "=" in text)
    with tempfile.TemporaryDirectory() as temporary, parallel(ParallelConfig(device="cpu")) as place:
        networks = {name: load_restorer(Path(path), place) for name, path in paths.items()}
        store = open_store(stores[0] if stores else film(Path(temporary)))
        voxels = store.voxel_name(
            next((one.info.voxels for one in networks.values() if one.takes_spikes), None)
        )
        scores: list[dict[str, dict[str, float]]] = []
        with torch.inference_mode():
            for sequence in store.sequences("test"):
                for shot, variants in frames(sequence, networks, voxels, store.scale):
                    scores.append({name: scored(image, shot) for name, image in variants.items()})
    report(scores, list(networks))


def film(folder: Path) -> Path:
    """A store of the demo's unseen scenes."""
    scenes = from_overrides(SceneConfig, ["train=1", "val=0"])
    simulate_scenes(folder / "raw", scenes)
    ingest(folder / "raw", folder / "store", read_manifest("simulated"), workers=1)
    voxelize(folder / "store", num_bins=16, workers=1)
    return folder / "store"


def frames(
    sequence: Sequence, networks: dict[str, Restorer], voxels: str, scale: int
) -> Iterator[tuple[Shot, dict[str, Tensor]]]:
    """Each exposure of a sequence with its variants, (3, H, W) in about [0, 1]."""
    grids, noise = sequence.voxels(voxels), torch.Generator().manual_seed(0)
    restored = {name: restore(network, sequence, grids, scale) for name, network in networks.items()}
    for index in np.flatnonzero(sequence.has_sharp).tolist():
        start, stop = (int(edge) for edge in sequence.exposure[index])
        shot = Shot(
            blurry=torch.tensor(sequence.blurry[index]),
            sharp=torch.tensor(sequence.sharp[index]),
            counts=torch.tensor(grids[index]),
            frames_per_bin=frames_per_bin(stop - start, grids.shape[1]).tolist(),
            instant=int(sequence.sharp_index[index]) - start + 0.5,
            scale=scale,
        )
        sharp, blurry = to_unit(shot.sharp), to_unit(shot.blurry)
        estimate = spike_only(shot.blurry, shot.counts, shot.frames_per_bin, shot.instant, scale)
        variants = {SHARP: sharp, BLURRY: blurry, ESTIMATE: estimate}
        variants |= {name: images[index] for name, images in restored.items()}
        for levels in (2, 5, 10):
            variants[f"noise, {levels} levels"] = (
                sharp + torch.randn(sharp.shape, generator=noise) * levels / 255
            )
        for sigma in (0.7, 1.5, 3.0):
            variants[f"Gaussian blur, sigma {sigma}"] = blurred(sharp, sigma * scale)
        for pixels in (1, 2):
            variants[f"shifted by {pixels} pixels"] = torch.roll(sharp, pixels * scale, dims=2)
        for percent in (25, 50, 75):
            variants[f"{percent} % of the motion blur"] = torch.lerp(sharp, blurry, percent / 100)
        yield shot, variants


def restore(network: Restorer, sequence: Sequence, grids: object, scale: int) -> list[Tensor]:
    """All frames, cut as `spk evaluate` cuts them."""
    tiling, counts = EvaluateConfig().tiling(network.num_frames), grids if network.takes_spikes else None
    return [
        frame
        for run in sequence.runs
        for frame in restore_tiled(network, sequence.blurry, counts, tiling, span=run, scale=scale)
    ]


def blurred(image: Tensor, sigma: float) -> Tensor:
    reach = math.ceil(3 * sigma)
    line = torch.exp(-(torch.arange(-reach, reach + 1) ** 2) / (2 * sigma**2))
    line = line / line.sum()
    padded = functional.pad(image[:, None], (reach,) * 4, mode="replicate")
    rows = functional.conv2d(padded, line.view(1, 1, 1, -1))
    return functional.conv2d(rows, line.view(1, 1, -1, 1))[:, 0]


def scored(image: Tensor, shot: Shot) -> dict[str, float]:
    candidate = Candidate(image=image, rgb8=to_rgb8(image))
    measured = {name: measure(candidate, shot) for name, measure in MEASURES.items()}
    return {"psnr": psnr(candidate.rgb8, shot.sharp).item(), **measured}


def report(scores: list[dict[str, dict[str, float]]], networks: list[str]) -> None:
    means = {
        name: {key: statistics.mean(frame[name][key] for frame in scores) for key in ("psnr", *MEASURES)}
        for name in scores[0]
    }
    lines = ["| frame | PSNR dB | reblur dB | spikes |", "| --- | ---: | ---: | ---: |"]
    for name, mean in sorted(means.items(), key=lambda entry: -entry[1]["psnr"]):
        truth = "-" if math.isinf(mean["psnr"]) else f"{mean['psnr']:.2f}"
        lines.append(f"| {name} | {truth} | {mean['reblur']:.2f} | {mean['spikes']:.3f} |")
    groups = {
        "all": list(means),
        "all but spike_only": [name for name in means if name != ESTIMATE],
        "sharp, networks, blurry": [SHARP, *networks, BLURRY],
    }
    lines += [
        "",
        f"| rank correlation with PSNR, {len(scores)} frames | reblur | spikes |",
        "| --- | ---: | ---: |",
    ]
    found = {}
    for group, names in groups.items():
        if len(names) < 3:
            continue
        found[group] = {
            key: statistics.mean(ranked(frame, names, key) for frame in scores) for key in MEASURES
        }
        lines.append(f"| {group} | {found[group]['reblur']:.3f} | {found[group]['spikes']:.3f} |")
    sys.stdout.write("\n".join(lines) + "\n")
    if found["all but spike_only"]["spikes"] < LEAST_RANK:
        sys.exit(f"spikes ranks frames otherwise than PSNR does: below {LEAST_RANK}")
    if not SHARP_SPIKES[0] < means[SHARP]["spikes"] < SHARP_SPIKES[1]:
        sys.exit(f"spikes is {means[SHARP]['spikes']:.3f} for sharp frames, not about 1")


def ranked(frame: dict[str, dict[str, float]], names: list[str], key: str) -> float:
    """Spearman's rank correlation of a score with PSNR."""
    ranks = [np.argsort(np.argsort([frame[name][by] for name in names])) for by in ("psnr", key)]
    return float(np.corrcoef(*ranks)[0, 1])


if __name__ == "__main__":
    main()
