"""What scoring costs in an evaluation: its share of the time, frames a second, scikit-image beside it, and memory.

python benchmarks/evaluating.py [--frames N] [--rounds N] [--size HxW] [--skip pass base scikit-image memory]

Frames are generated, with spikes at half their size. Scores are those of four methods: a network, another one as with
--compare, the blurry frame and the spike-only estimate. `tiny` restores frames as `spk evaluate` does; what a frame of
the reference network `base` takes is told from one small clip of it, by the pixel. Times are CPU times of the process,
and those of one run belong together. Peak memory is of processes of their own, for few and for many frames.
"""

import argparse
import multiprocessing
import sys
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch import Tensor

from benchmarks.rounds import medians
from model.evaluation.judge import judge_sequence
from model.evaluation.lineup import Entrant, Lineup
from model.evaluation.measures import psnr_rgb8, ssim_rgb8
from model.evaluation.protocols import DEFAULT, PROTOCOLS, Protocol
from model.evaluation.shots import Candidate, Shot
from model.metrics import to_rgb8
from model.network import build_network
from model.normalize import to_unit
from model.tiling import Tiling
from model.training.config import TrainConfig
from pipeline.config import load_config
from pipeline.machine import peak_memory_bytes

SCALE, BINS, SPIKES_PER_FRAME, METHODS = 2, 8, 40, 4
CONFIGS = Path(__file__).resolve().parents[1] / "configs"
SETS: Mapping[str, tuple[Protocol, ...]] = {
    DEFAULT: (PROTOCOLS[DEFAULT],),
    "rgb8-all and kair": (PROTOCOLS[DEFAULT], PROTOCOLS["kair"]),
    "all": tuple(PROTOCOLS.values()),
}


def recording(num_frames: int, height: int, width: int) -> SimpleNamespace:
    """As much of a stored sequence as the judge looks at; frames are made when they are asked for."""

    class Frames:
        def __init__(self, shape: tuple[int, ...], top: int, shift: int) -> None:
            self.shape, self.dtype, self._top = (num_frames, *shape), np.dtype(np.uint8), top
            x = np.arange(np.prod(shape), dtype=np.uint32).reshape(shape)
            self._picture = (x * (shift + 2 * x // shape[-1]) // 7 % top).astype(np.uint8)

        def __getitem__(self, key: object) -> np.ndarray:
            first, *rest = key if isinstance(key, tuple) else (key,)
            where = range(num_frames)[first]
            indices = [where] if isinstance(where, int) else where
            made = np.stack([np.roll(self._picture, 3 * index, axis=-1)[tuple(rest)] for index in indices])
            return made[0] if isinstance(where, int) else made

        def __len__(self) -> int:
            return num_frames

    start = SPIKES_PER_FRAME * np.arange(num_frames)[:, None]
    counts = Frames((BINS, height // SCALE, width // SCALE), 5, 3)
    return SimpleNamespace(
        name="generated",
        frames=tuple(f"{i:06d}" for i in range(num_frames)),
        blurry=Frames((3, height, width), 251, 1),
        sharp=Frames((3, height, width), 251, 5),
        exposure=start + np.array([0, SPIKES_PER_FRAME]),
        sharp_index=start[:, 0] + SPIKES_PER_FRAME // 2,
        has_sharp=np.ones(num_frames, dtype=bool),
        runs=((0, num_frames),),
        voxels=lambda name: counts,
    )


class Untrained:
    """A network as a `Restorer` applies it; without a preset the one that leaves frames as they are."""

    takes_instants = False

    def __init__(self, preset: str | None = None) -> None:
        self.network = None
        if preset is not None:
            config = load_config(TrainConfig, CONFIGS / f"{preset}.yaml", ["store=none"])
            torch.manual_seed(0)
            self.network = build_network(config.network, BINS).eval()

    def __call__(self, blurry: Tensor, counts: Tensor | None) -> Tensor:
        unit = to_unit(blurry)
        return unit if self.network is None or counts is None else self.network(unit, counts.float()).float()


def judged(num_frames: int, size: Sequence[int], preset: str, protocols: Sequence[Protocol]) -> None:
    """Restore and score a recording, and let go of every frame at once."""
    entrant = Entrant(
        restorer=Untrained(preset), voxels="k8", tiling=Tiling(tile=256, num_frames=4, overlap_frames=2)
    )
    unlearned = Entrant(restorer=Untrained(), voxels=None, tiling=entrant.tiling)
    entrants = {"restored": entrant, "other": unlearned}
    with torch.inference_mode():
        lineup = Lineup(
            entrants=entrants, voxels="k8", scale=SCALE, device=torch.device("cpu"), protocols=protocols
        )
        for _ in judge_sequence(recording(num_frames, *size), lineup):
            pass


def scoring(size: Sequence[int], rounds: int) -> dict[str, float]:
    """Seconds that the scores of one frame take, by set of protocols."""
    sequence = recording(2, *size)
    blurry, sharp = (torch.from_numpy(frames[1]) for frames in (sequence.blurry, sequence.sharp))
    shot = shot_of(blurry, sharp)

    def score(protocols: Sequence[Protocol]) -> None:
        for _ in range(METHODS):
            made = Candidate(image=blurry / 255, rgb8=blurry, before=sharp)
            for protocol in protocols:
                protocol.score(made, shot)

    return medians({name: partial(score, protocols) for name, protocols in SETS.items()}, rounds)


def shot_of(blurry: Tensor, sharp: Tensor) -> Shot:
    counts = torch.zeros(BINS, *(side // SCALE for side in sharp.shape[-2:]))
    return Shot(
        blurry=blurry,
        sharp=sharp,
        before=sharp,
        counts=counts,
        frames_per_bin=(SPIKES_PER_FRAME // BINS,) * BINS,
        instant=SPIKES_PER_FRAME / 2,
        scale=SCALE,
    )


def whole_pass(num_frames: int, size: Sequence[int]) -> float:
    """Seconds a frame of an evaluation with `tiny` and another network that costs nothing, by rgb8-all."""
    started = time.process_time()
    judged(num_frames, size, "tiny", SETS[DEFAULT])
    return (time.process_time() - started) / num_frames


def clip_of_base(size: Sequence[int]) -> float:
    """Seconds a frame that `base` would take, by the pixels of one clip."""
    side, num_frames = 128, 2
    network = Untrained("base")
    blurry = torch.zeros(1, num_frames, 3, side, side, dtype=torch.uint8)
    counts = torch.zeros(1, num_frames, BINS, side // SCALE, side // SCALE)
    with torch.inference_mode():
        started = time.process_time()
        network(blurry, counts)
        return (time.process_time() - started) / (num_frames * side**2) * size[0] * size[1]


def shares(scores: Mapping[str, float], others: Mapping[str, float]) -> None:
    """Print what scores cost, and what share of an evaluation they are beside what else it does."""
    say(
        f"| protocols | scores of {METHODS} methods, s | {' | '.join(f'share beside {name}' for name in others)} |"
    )
    say(f"| --- | ---: | {' | '.join('---:' for _ in others)} |")
    for name, value in scores.items():
        cells = (f"{value / (value + other):.2%}" for other in others.values())
        say(f"| {name} | {value:.2f} | {' | '.join(cells)} |")


def beside_scikit_image(size: Sequence[int], rounds: int) -> None:
    """Print how much longer scikit-image takes for the same numbers of the same frame."""
    sequence = recording(2, *size)
    sharp, image = torch.from_numpy(sequence.sharp[0]), torch.from_numpy(sequence.blurry[0]) / 255
    made, shot = Candidate(image=image, rgb8=to_rgb8(image)), shot_of(sharp, sharp)
    theirs, ours = sharp.numpy(), made.rgb8.numpy()
    gaussian = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 255}
    variants = {
        "PSNR": (lambda: psnr_rgb8(made, shot), lambda: peak_signal_noise_ratio(theirs, ours)),
        "SSIM": (
            lambda: ssim_rgb8(made, shot),
            lambda: structural_similarity(ours, theirs, channel_axis=0, **gaussian),
        ),
    }
    say("\n### scikit-image over ours, CPU time, one frame\n")
    say("| metric of rgb8-all | CPU time over ours | difference |\n| --- | ---: | ---: |")
    for name, (mine, other) in variants.items():
        seconds = medians({"ours": mine, "scikit-image": other}, rounds)
        ratio = seconds["scikit-image"] / seconds["ours"]
        say(f"| {name} | {ratio:.1f} | {abs(mine() - other()):.1g} |")


def memory(size: Sequence[int]) -> None:
    """Print the peak memory of processes that judge few and many frames."""
    say(f"\n### Peak memory, all protocols, frames of {size[0]}x{size[1]}\n")
    say("| frames | MiB |\n| --- | ---: |")
    for num_frames in (20, 200):
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            peak = pool.apply(_peak, (num_frames, tuple(size)))
        say(f"| {num_frames} | {peak / 2**20:.0f} |")


def _peak(num_frames: int, size: tuple[int, int]) -> int:
    judged(num_frames, size, "tiny", tuple(PROTOCOLS.values()))
    return peak_memory_bytes()


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--frames", type=int, default=2, help="of the pass with tiny")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--size", default="720x1280", help="of the frames")
    parser.add_argument(
        "--skip", nargs="*", default=(), choices=("pass", "base", "scikit-image", "memory"), metavar="PART"
    )
    arguments = parser.parse_args()
    size = [int(side) for side in arguments.size.split("x")]
    scores = scoring(size, arguments.rounds)
    others = {}
    if "pass" not in arguments.skip:
        seconds = whole_pass(arguments.frames, size)
        others["tiny"] = seconds - scores[DEFAULT]
        say(f"A pass with `tiny` by {DEFAULT}: {1 / seconds:.3f} frames/s of CPU time.\n")
    if "base" not in arguments.skip:
        others["base"] = clip_of_base(size)
        say(f"A frame of `base`: {others['base']:.0f} s of CPU time.\n")
    say(f"### One frame of {arguments.size}, CPU time, median of {arguments.rounds}\n")
    shares(scores, others)
    if "scikit-image" not in arguments.skip:
        beside_scikit_image(size, arguments.rounds)
    if "memory" not in arguments.skip:
        memory((64, 96))


if __name__ == "__main__":
    main()
