"""A recording that looks like one, for timings: a textured scene gliding past both cameras.

Spikes come from integrate-and-fire pixels, because noise compresses quite differently; RGB frames are a smooth picture
with noise of one grey level, because the time a PNG takes depends on what it shows.
"""

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pipeline.config import build
from pipeline.dat import write_dat
from pipeline.images import write_png
from pipeline.ingest import ingest
from pipeline.manifest import Manifest
from pipeline.simulation.camera import Sensor, SpikeCamera
from pipeline.simulation.textures import random_texture
from pipeline.spike_format import SpikeFormat
from pipeline.store import Store, open_store
from pipeline.voxelize import voxelize

RGB, SPIKES, WINDOW, BINS = (720, 1280), (360, 640), 88, 32
RAW_GRIDS, COMPRESSED_GRIDS = "raw", "lz4"
STEP = 4
"""Spike frames between two positions of the scene."""


def build_store(folder: Path, *, sequences: int, frames: int) -> Store:
    """Record `sequences` of `frames` frames below `folder`/raw, and ingest them with raw and compressed voxel grids."""
    for number in range(sequences):
        _record(folder / "raw" / "train" / f"s{number}", frames, seed=number)
    values = {
        "name": "benchmark",
        "layout": {
            "spikes": "{split}/{sequence}/spikes.dat",
            "blurry": "{split}/{sequence}/blurry/{frame}.png",
            "sharp": "{split}/{sequence}/sharp/{frame}.png",
        },
        "spikes": {"height": SPIKES[0], "width": SPIKES[1], "rate_hz": 1920},
        "exposure": {"rule": "every", "window": WINDOW},
        "splits": {"train": {}},
    }
    store = folder / "store"
    ingest(folder / "raw", store, build(Manifest, values, "benchmark"))
    voxelize(store, num_bins=BINS, name=RAW_GRIDS)
    voxelize(store, num_bins=BINS, name=COMPRESSED_GRIDS, codec="lz4")
    return open_store(store)


def _record(folder: Path, frames: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    texture = random_texture(rng, 2048, shapes=200)
    sensor = Sensor(SpikeCamera(), SPIKES, rng)
    speed = rng.uniform(-1, 1, 2)
    spikes = []
    for frame in range(frames):
        views = []
        for instant in range(frame * WINDOW, (frame + 1) * WINDOW, STEP):
            row, column = np.rint(speed * instant).astype(int) % 2048
            views.append(np.roll(texture, (row, column), (1, 2))[:, : RGB[0], : RGB[1]])
            grey = views[-1].mean(0)
            light = (grey[::2, ::2] + grey[1::2, ::2] + grey[::2, 1::2] + grey[1::2, 1::2]) / 4
            spikes.append(sensor.integrate(np.repeat(light[None], STEP, axis=0)))
        for kind, picture in {"blurry": np.mean(views, axis=0), "sharp": views[len(views) // 2]}.items():
            noisy = picture * 255 + rng.normal(0, 1, picture.shape)
            write_png(folder / kind / f"{frame:04d}.png", noisy.clip(0, 255).astype(np.uint8))
    shape = SpikeFormat(height=SPIKES[0], width=SPIKES[1], rate_hz=1920)
    write_dat(folder / "spikes.dat", spikes, shape)
