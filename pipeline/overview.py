"""A screenful about a spike file or a store, as facts and as a picture."""

from collections.abc import Sequence as Many
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.camera_facts import reset_of, threshold_of
from pipeline.dat import SpikeStream, open_spikes
from pipeline.images import write_png
from pipeline.previews.preview import contact_sheet, tfp, to_grey8, voxel_preview
from pipeline.recognition.smoothness import GeometryScore
from pipeline.storage.root import STATS, VOXELIZE
from pipeline.store import Sequence, Store

U8 = npt.NDArray[np.uint8]
SHOWN_FRAMES = 64
"""Spike frames that a preview takes the mean of, in the middle of a recording."""


def draw_candidates(path: Path, candidates: Many[GeometryScore], picture: Path) -> None:
    """Draw a `.dat` as it looks when read in each of some ways, side by side in one PNG."""
    images = [_mean_image(open_spikes(path, one.reading)) for one in candidates]
    labels = [f"{one.size} {one.reading.bit_order} {one.score:.3f}" for one in candidates]
    write_png(picture, contact_sheet(images, labels))


def draw_stream(stream: SpikeStream, picture: Path) -> None:
    """Draw the mean of the spike frames in the middle of a recording into a PNG."""
    height, width = stream.shape[1:]
    write_png(picture, contact_sheet([_mean_image(stream)], [f"{len(stream)} frames of {height}x{width}"]))


def _mean_image(stream: SpikeStream) -> U8:
    middle = len(stream) // 2
    window = max(0, middle - SHOWN_FRAMES // 2), min(len(stream), middle + SHOWN_FRAMES // 2)
    return to_grey8(tfp(stream.packed(*window), stream.shape[2]))


def store_facts(store: Store) -> dict[str, Any]:
    """What `spk inspect STORE` tells: counts, stages, statistics, and a line about every sequence."""
    facts = [_all_facts(store.sequence(*key)) for key in store.sequence_keys]  # one sequence open at a time
    cameras = dict.fromkeys((about["threshold"], about["reset"]) for about, _ in facts)
    return {
        "kind": "store",
        "sequences": len(facts),
        "frames": sum(about["frames"] for about, _ in facts),
        "stages": list(store.stages),
        "stats": {name: found for name in store.voxel_names if (found := _statistics(store, name))},
        "fingerprint": store.fingerprint,
        "cameras": [{"threshold": threshold, "reset": reset} for threshold, reset in cameras],
        "timing": [
            {"sequence": f"{about['split']}/{about['name']}", **timing} for about, timing in facts if timing
        ],
        "sequences_list": [about for about, _ in facts],
    }


def _all_facts(sequence: Sequence) -> tuple[dict[str, Any], dict[str, Any]]:
    """What is told of a sequence, and of its timing."""
    return _sequence_facts(sequence), sequence.attributes.get("timing") or {}


def _statistics(store: Store, name: str) -> dict[str, Any]:
    """What the store keeps of its train split's counts, without the histogram; empty when it has no train split."""
    if STATS not in store.attributes["stages"][VOXELIZE + name]:
        return {}
    attributes = store.nodes.find(f"{STATS}/{name}").attributes
    return {key: value for key, value in attributes.items() if key != "histogram"}


def _sequence_facts(sequence: Sequence) -> dict[str, Any]:
    lengths = np.diff(sequence.exposure).ravel()
    images = sequence.sharp if sequence.blurry is None else sequence.blurry
    r2 = [fit.r2 for fit in sequence.light]
    same = lengths.min() == lengths.max()
    return {
        "split": sequence.split,
        "name": sequence.name,
        "frames": sequence.num_frames,
        "runs": len(sequence.runs),
        "sharp": int(sequence.has_sharp.sum()),
        "rgb": "x".join(map(str, images.shape[2:])) if images is not None else "none",
        "spikes": f"{sequence.spikes.shape[0]} of {'x'.join(map(str, sequence.spike_shape))}",
        "r2": [round(float(value), 3) for value in (np.median(r2), min(r2))] if r2 else None,
        "threshold": threshold_of(sequence.camera),
        "reset": reset_of(sequence.camera),
        "exposure": f"{lengths[0]}" if same else f"{lengths.min()} to {lengths.max()}",
    }


def draw_store(store: Store, picture: Path, rows: int = 6) -> None:
    """Draw the middle frame of some sequences, spread over the store: blurry, sharp, and the spikes around it."""
    keys = store.sequence_keys
    chosen = [keys[i] for i in np.unique(np.linspace(0, len(keys) - 1, min(rows, len(keys))).astype(int))]
    drawn = [_pictures_of(store.sequence(*key)) for key in chosen]
    columns = max(map(len, drawn))
    blank = "", np.full((1, 1), 255, np.uint8)
    cells = [cell for row in drawn for cell in row + [blank] * (columns - len(row))]
    labels, images = zip(*cells, strict=True)
    write_png(picture, contact_sheet(images, labels, columns=columns))


def _pictures_of(sequence: Sequence) -> list[tuple[str, U8]]:
    """The middle frame of a sequence, as (label, picture) of each kind there is."""
    frame = sequence.num_frames // 2
    start, stop = sequence.exposure[frame]
    name = f"{sequence.split}/{sequence.name}"
    pictures = []
    if sequence.blurry is not None:
        pictures.append((f"{name} blurry", sequence.blurry[frame]))
    if sequence.sharp is not None and sequence.has_sharp[frame]:
        pictures.append((f"{name} sharp", sequence.sharp[frame]))
    threshold = threshold_of(sequence.camera)
    mean = tfp(sequence.spikes[start:stop], sequence.spike_shape[1], threshold or 1.0)
    pictures.append((f"{name} spikes, mean", to_grey8(mean, white=1.0 if threshold else None)))
    for voxels in sequence.voxel_names[:1]:
        counts = sequence.voxels(voxels)[frame]
        pictures.append((f"{name} spikes, middle", voxel_preview(counts, around=len(counts) / 2)))
    return pictures
