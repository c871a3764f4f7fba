"""Simulated recordings on disk: one folder per sequence, whole or absent.

OUT/simulation.yaml                       the settings everything below was made with
OUT/<split>/<sequence>/blurry/000000.png  sharp/000000.png, with the same names
OUT/<split>/<sequence>/spikes.dat         the whole recording
OUT/<split>/<sequence>/exposures.csv      frame,start_ns,stop_ns on the clock of the spikes, and sharp_ns with sharp_at
OUT/<split>/<sequence>/format.yaml        the bytes of spikes.dat
OUT/<split>/<sequence>/camera.yaml        the spike camera, the timing and the light
"""

import os
import shutil
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.config import to_plain
from pipeline.dat import write_dat
from pipeline.errors import UsageError
from pipeline.files import sync_directory, write_atomic
from pipeline.images import write_png
from pipeline.logs.timestamps import write_log
from pipeline.simulation.rig import Film, RigConfig
from pipeline.spans import nanoseconds
from pipeline.spike_format import SpikeFormat
from pipeline.yaml_files import dump_yaml, read_yaml

SPLITS = ("train", "val", "test")
SETTINGS = "simulation.yaml"
_HALF = Fraction(1, 2)
PARTIAL = ".partial-"
"""Beginning of the folders still being written; one that is left over belongs to a killed run."""


def claim(out: Path, settings: Mapping[str, Any], *, overwrite: bool, dry_run: bool = False) -> bool:
    """Make `out` the place of a simulation with these settings; say whether it was so already.

    With `overwrite`, the sequences of another simulation are deleted first; nothing else ever is. A simulation that
    came to nothing gives way without it. With `dry_run`, nothing is changed.

    Raises:
        UsageError: `out` holds a simulation with other settings, or something that is no simulation.
    """
    wanted, path = to_plain(settings), out / SETTINGS
    found = read_yaml(path) if path.is_file() else None
    if found == wanted:
        return True
    if found is None and out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out}: exists and holds no {SETTINGS}", "choose a new or empty folder")
    if found is not None and not overwrite and _sequences(out):
        changed = sorted(key for key in found.keys() | wanted.keys() if found.get(key) != wanted.get(key))
        raise UsageError(
            f"{out}: already holds a simulation with other settings ({', '.join(changed)} differ)",
            f"choose another folder, or replace it: spk simulate ... -o {out} --overwrite",
        )
    if not dry_run:
        _delete_sequences(out)
        write_atomic(path, dump_yaml(wanted))
    return False


def sequence_folder(out: Path, split: str, sequence: str) -> Path:
    """Where a sequence lies once it is complete."""
    return out / split / sequence


def write_sequence(out: Path, split: str, sequence: str, film: Film, rig: RigConfig) -> None:
    """Write one sequence: to a folder of a temporary name that is synced and renamed when everything is in it."""
    folder = out / f"{PARTIAL}{split}-{sequence}"
    shutil.rmtree(folder, ignore_errors=True)
    names = [f"{frame:06d}" for frame in range(rig.num_frames)]
    for name, blurry, sharp in zip(names, film.blurry, film.sharp, strict=True):
        write_png(folder / "blurry" / f"{name}.png", blurry)
        write_png(folder / "sharp" / f"{name}.png", sharp)
    num_frames, height, width = film.spikes.shape
    spike_format = SpikeFormat(height=height, width=width, rate_hz=rig.rate_hz, num_frames=num_frames)
    write_dat(folder / "spikes.dat", film.spikes, spike_format)
    write_log(folder / "exposures.csv", names, *_nanoseconds(film, rig))
    write_atomic(folder / "format.yaml", dump_yaml(to_plain(spike_format)))
    write_atomic(folder / "camera.yaml", dump_yaml(_facts(rig)))
    final = sequence_folder(out, split, sequence)
    final.parent.mkdir(parents=True, exist_ok=True)
    os.rename(folder, final)
    sync_directory(final.parent)
    sync_directory(out)


def _nanoseconds(film: Film, rig: RigConfig) -> list[npt.NDArray[np.int64]]:
    """When each exposure starts and stops, and if they are not all in the middle the instants of the sharp frames."""
    start, stop = rig.spans.T
    moments = [start, stop] if film.sharp_frames is None else [start, stop, film.sharp_frames + _HALF]
    return [np.array([nanoseconds(at, rig.rate_hz) for at in some.tolist()], np.int64) for some in moments]


def _facts(rig: RigConfig) -> dict[str, Any]:
    timing = to_plain(rig)
    camera = timing.pop("camera")
    return {"camera": camera, "timing": timing, "light": "linear", "grey": "mean of R, G and B"}


def _sequences(out: Path) -> list[Path]:
    folders = [folder for split in SPLITS if (out / split).is_dir() for folder in (out / split).iterdir()]
    return [folder for folder in folders if (folder / "camera.yaml").is_file()]


def _delete_sequences(out: Path) -> None:
    # The old settings stay until everything is gone: a run killed half way through can be continued either way.
    for folder in [*_sequences(out), *out.glob(f"{PARTIAL}*")]:
        shutil.rmtree(folder)
