"""Spikes to look at, wherever they are: a sequence of a store, or a spike file whose format is given or found."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.camera_facts import CAMERA_FILE, read_camera
from pipeline.config import build, from_overrides
from pipeline.dat import open_spikes
from pipeline.errors import UsageError
from pipeline.inputs import require_file
from pipeline.recognition.detection import detect_format
from pipeline.spike_format import AutoFormat, SpikeFormat
from pipeline.store import open_store
from pipeline.yaml_files import read_yaml

U8 = npt.NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True, slots=True)
class OpenedSpikes:
    """A recording that is open, with what is known of it; a `SpikeSource`.

    Attributes:
        name: for people.
        shape: (T, H, W).
        read: packed frames [start, stop).
        how: how the bytes are read, for people.
        rate_hz: spike frames per second, where it is known.
        exposures: spike-frame spans [start, stop) of the RGB frames, (N, 2), where there are any.
        camera: facts about the camera.
    """

    name: str
    shape: tuple[int, int, int]
    read: Callable[[int, int], U8]
    how: str
    rate_hz: Fraction | None = None
    exposures: npt.NDArray[np.int64] | None = None
    camera: Mapping[str, Any] = field(default_factory=dict)

    def packed(self, start: int, stop: int) -> U8:
        """Frames [start, stop) as (n, H, ceil(W / 8)) bytes, first pixel in the lowest bit."""
        return self.read(start, stop)


def open_sequence(path: Path, key: str | None) -> OpenedSpikes:
    """Open the sequence `split/name` of a store; its first one without a key.

    Raises:
        UsageError: no such sequence.
        StoreError: no whole store.
    """
    store = open_store(path)
    split, _, name = (key or "/".join(store.sequence_keys[0])).partition("/")
    sequence = store.sequence(split, name)
    spikes = sequence.spikes
    return OpenedSpikes(
        name=f"{path} {split}/{name}",
        shape=(len(spikes), *sequence.spike_shape),
        read=lambda start, stop: spikes[start:stop],
        how="as the store has them",
        rate_hz=Fraction(sequence.attributes["format"]["rate_hz"]),
        exposures=sequence.exposure,
        camera=sequence.camera,
    )


def open_file(path: Path, settings: Sequence[str] = (), format_file: Path | None = None) -> OpenedSpikes:
    """Open a spike file; the camera.yaml beside it, if there is one, tells of its camera.

    Args:
        settings: fields of its `SpikeFormat`, height=360 width=640 ...; its rate may be left out.
        format_file: a YAML file of them. With neither, the file's content has to tell.

    Raises:
        UsageError: nothing says how to read the file.
        FormatError: it is not what it is said to be.
        ConfigError: wrong settings.
    """
    require_file(path, "spike")
    if format_file is not None and settings:
        raise UsageError(f"{' '.join(settings)}: give these or --format, not both")
    if format_file is not None:
        fmt, how = build(SpikeFormat, read_yaml(format_file), str(format_file)), f"as {format_file} says"
    elif settings:
        fmt, how = from_overrides(SpikeFormat, ["rate_hz=1", *settings]), "as told"
    else:
        fmt = detect_format(path, AutoFormat(geometry="auto", rate_hz=Fraction(1)))
        how = f"as found: {fmt.bit_order if path.suffix.lower() == '.dat' else fmt.axes}, flip {fmt.flip} as usual"
    is_timed = format_file is not None or any(text.startswith("rate_hz=") for text in settings)
    stream = open_spikes(path, fmt)
    beside = path.parent / CAMERA_FILE
    return OpenedSpikes(
        name=str(path),
        shape=(len(stream), fmt.height, fmt.valid_width),
        read=stream.packed,
        how=f"{len(stream)} frames of {fmt.height}x{fmt.valid_width}, {how}",
        rate_hz=fmt.rate_hz if is_timed else None,
        camera=read_camera(beside) if beside.is_file() else {},
    )
