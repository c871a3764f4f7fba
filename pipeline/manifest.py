"""Manifests: one YAML file says where a data set keeps its frames and spikes, and how the two meet in time.

The dataclasses here and `Layout` are the schema: YAML keys are their field names.
"""

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path, PurePosixPath
from typing import Literal

from pipeline.config import apply_overrides, build
from pipeline.errors import ConfigError
from pipeline.files import can_be_path
from pipeline.layout import Layout
from pipeline.logs.settings import LogClock, TimestampColumns, check_clock
from pipeline.name_patterns import check_pattern
from pipeline.spike_format import AutoFormat, SpikeFormat
from pipeline.yaml_files import read_yaml

SHIPPED = Path(__file__).resolve().parents[1] / "data_manifests"


@dataclass(frozen=True, kw_only=True, slots=True)
class Numbering:
    """The number of a frame, read from a name. With the rule `centred` it is the spike frame at the centre.

    The number is `group 1 * per_number + (group 2 + 1 where there is one) + offset`. X4K1000FPS counts quarters:
    with `per_number: 4` frame `0007` is 28 and `0007_002` is 31 (SpkDeblurNet x4k1000fps_sequence.py).

    Attributes:
        source: take it from the stem of the frame's file, or from the sequence's name; `order` is the frame's place
            among all of its sequence, from 0, whatever it is called (`every` only).
        pattern: regular expression with one or two groups of digits, found anywhere in the name.
        per_number: spike frames from one whole number to the next.
        offset: added at the end; -1 for names that count spike frames from 1.
    """

    source: Literal["frame", "sequence", "order"] = "frame"
    pattern: str = r"^(\d+)(?:_(\d+))?$"
    per_number: int = 1
    offset: int = 0

    def __post_init__(self) -> None:
        check_pattern(self.pattern, most_groups=2)
        if self.per_number < 1:
            raise ValueError(f"per_number {self.per_number} must be at least 1")


@dataclass(frozen=True, kw_only=True, slots=True)
class RawFrames:
    """Sequences named by how many raw frames make one blurry frame: GOPR0372_07_00 averages 7.

    Attributes:
        pattern: regular expression whose group 1 is that number n, found in the sequence's name.
        spike_frames: spike frames simulated for each raw frame; a file holds n times as many.
        last_short: spike frames that the last file of a sequence may lack.
    """

    pattern: str
    spike_frames: int
    last_short: int = 0

    def __post_init__(self) -> None:
        check_pattern(self.pattern, most_groups=1)
        if self.spike_frames < 1 or not 0 <= self.last_short < self.spike_frames:
            raise ValueError(f"spike_frames {self.spike_frames} must be at least 1 and above last_short")


@dataclass(frozen=True, kw_only=True, slots=True)
class Exposure:
    """Which spike frames belong to which RGB frame.

    Attributes:
        rule: `whole_file`: the file of the frame, all of it but its `margin`. `centred`: `window` spike frames around
            the frame's number. `log`: the alignment log. `every`: `window` spike frames from the frame's number times
            `stride`.
        window: spike frames of one exposure (`centred`, `every`; with `whole_file` what each file must come to).
        margin: spike frames that each file holds before, and again after, its exposure (`whole_file`).
        stride: spike frames from one exposure to the next (`every`); None is `window`.
        numbering: how a frame's name gives its number (`centred`; `every`; `log` in the dialect "seconds").
        dialect: of the log; None recognises it by its header.
        timestamps: the columns of a log that is a table of no known dialect.
        clock: what the log's stamps mean on the clock of the spikes.
        log_rate_hz: spike frames per second of the log's clock where that is not `rate_hz`: logs of the X4K tradition
            divide frame indices by 1000, whatever the camera did.
        offset_frames: spike frames added to every exposure and sharp instant, for a log that is always off by as many.
        raw_frames: check of file lengths (`whole_file`), and what the sharp rule `raw_frames` needs.
    """

    rule: Literal["whole_file", "centred", "log", "every"]
    window: int | None = None
    margin: int = 0
    stride: int | None = None
    numbering: Numbering = field(default_factory=Numbering)
    dialect: Literal["seconds", "indices", "csv", "pairs"] | None = None
    timestamps: TimestampColumns | None = None
    clock: LogClock = field(default_factory=LogClock)
    log_rate_hz: Fraction | None = None
    offset_frames: int = 0
    raw_frames: RawFrames | None = None

    def __post_init__(self) -> None:
        if self.rule != "whole_file" and (self.window is not None) != (self.rule in ("centred", "every")):
            raise ValueError("window goes with the rules centred and every, which need it, and whole_file")
        if self.window is not None and self.raw_frames is not None:
            raise ValueError("window and raw_frames both say how long an exposure is: declare one of them")
        if self.margin < 0 or (
            self.margin and (self.rule != "whole_file" or not (self.window or self.raw_frames))
        ):
            raise ValueError(
                f"margin {self.margin}, 0 or more, goes with the rule whole_file and a length to check files by:"
                " window or raw_frames"
            )
        if any(value is not None and value < 1 for value in (self.window, self.stride)):
            raise ValueError(f"window {self.window} and stride {self.stride} must be at least 1")
        if self.numbering.source == "order" and self.rule != "every":
            raise ValueError(f"numbering.source order goes with the rule every, not {self.rule}")
        if self.log_rate_hz is not None and self.log_rate_hz <= 0:
            raise ValueError(f"log_rate_hz {self.log_rate_hz} must be above 0")
        if self.timestamps is not None and (self.rule != "log" or self.dialect is not None):
            raise ValueError(
                "timestamps goes with the rule log, and says what dialect would: leave dialect out"
            )
        check_clock(self.clock, "columns" if self.timestamps else self.dialect, self.log_rate_hz)


@dataclass(frozen=True, kw_only=True, slots=True)
class SharpInstant:
    """Which spike frame shows the instant of the sharp frame.

    Attributes:
        rule: `middle` of the exposure, (start + stop) // 2, unless the log has a column that tells it; `raw_frames`:
            start + spike_frames * (n // 2), the middle one of the n raw frames; `index`: start + `index`.
        index: for the rule `index`.
    """

    rule: Literal["middle", "raw_frames", "index"] = "middle"
    index: int | None = None

    def __post_init__(self) -> None:
        if (self.index is not None) != (self.rule == "index") or (self.index or 0) < 0:
            raise ValueError("index, 0 or more, goes with the rule index, which needs it, and no other")


@dataclass(frozen=True, kw_only=True, slots=True)
class SplitRule:
    """Which sequences are in a split.

    Attributes:
        sequences: names, or globs such as `*`; a listed name that is not on disk is reported, not required.
        folder: what `{split}` stands for in patterns; None is the split's own name.
    """

    sequences: tuple[str, ...] = ("*",)
    folder: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """One data set.

    Attributes:
        name, description, source, licence: for people, and for the store's provenance.
        layout: where its files are.
        exposure: which spike frames belong to which RGB frame.
        splits: by the split's name in the store.
        spikes: layout of the spike files, or `geometry: auto` with their rate, to find it from their content; may be
            left out when `layout.format` names a file for every sequence.
        split_spikes: for the splits whose spike files differ.
        scale: RGB pixels per spike pixel, along each side; "auto" takes it from the files, which must agree.
        sharp: which spike frame shows the instant of the sharp frame.
        missing_sharp: `error`, or `test_only`: such a frame is kept without a sharp one.
        continuity: `refuse` recordings whose content shows that a spike frame was lost or recorded twice, or `report`
            it and use them as they are.
        missing_spikes: `error`, or `leave_out`: an image without a spike file of its own is left out, counted and
            named.
        blurry_from_spikes: for data sets without RGB: the firing threshold by which an exposure's mean spike rate is
            multiplied to give a grey blurry frame.
    """

    name: str
    layout: Layout
    exposure: Exposure
    splits: Mapping[str, SplitRule]
    spikes: SpikeFormat | AutoFormat | None = None
    split_spikes: Mapping[str, SpikeFormat | AutoFormat] = field(default_factory=dict)
    scale: int | Literal["auto"] = "auto"
    sharp: SharpInstant = field(default_factory=SharpInstant)
    missing_sharp: Literal["error", "test_only"] = "error"
    continuity: Literal["refuse", "report"] = "refuse"
    missing_spikes: Literal["error", "leave_out"] = "error"
    blurry_from_spikes: float | None = None
    description: str = ""
    source: str = ""
    licence: str = ""

    def __post_init__(self) -> None:
        self._check_splits()
        self._check_exposure()
        if self.spikes is None and self.layout.format is None and set(self.splits) - set(self.split_spikes):
            raise ValueError("spikes: missing; declare height, width and rate_hz, or a layout.format file")
        if (self.layout.blurry is None) != (self.blurry_from_spikes is not None):
            raise ValueError(
                "declare either layout.blurry or, for a data set without RGB, blurry_from_spikes"
            )
        if self.blurry_from_spikes is not None and not 0 < self.blurry_from_spikes < float("inf"):
            raise ValueError(f"blurry_from_spikes {self.blurry_from_spikes} must be a threshold above 0")
        if self.scale != "auto" and not 1 <= self.scale <= 16:
            raise ValueError(f"scale {self.scale} must be 1 to 16, or auto")

    def _check_splits(self) -> None:
        if not self.splits:
            raise ValueError("splits: at least one is needed")
        for name, split in self.splits.items():
            if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name):
                raise ValueError(f"splits: name {name!r} must be letters, digits, '.', '_' and '-'")
            folder = split.folder or name
            climbs = ".." in PurePosixPath(folder).parts or folder.startswith("/")
            if climbs or set(folder) & set("{}*\\") or not can_be_path(folder):
                raise ValueError(f"splits.{name}.folder {folder!r} must be a folder inside the root")
        if unknown := set(self.split_spikes) - set(self.splits):
            raise ValueError(f"split_spikes: {', '.join(sorted(unknown))} is not one of the splits")

    def _check_exposure(self) -> None:
        rule, layout = self.exposure.rule, self.layout
        if "{frame}" in layout.spikes and rule != "whole_file":
            raise ValueError(f"spike files by {{frame}} go with the rule whole_file, not {rule}")
        if self.missing_spikes == "leave_out" and "{frame}" not in layout.spikes:
            raise ValueError("missing_spikes: leave_out goes with spike files by {frame} in layout.spikes")
        if (layout.log is not None) != (rule == "log"):
            raise ValueError("layout.log goes with the exposure rule log, which needs it, and no other")
        if self.sharp.rule == "raw_frames" and self.exposure.raw_frames is None:
            raise ValueError("the sharp rule raw_frames needs exposure.raw_frames")
        names_frames = layout.blurry or layout.sharp or ("{frame}" in layout.spikes)
        if not names_frames and rule != "every":
            raise ValueError(
                f"nothing names the frames of the rule {rule}: declare layout.blurry or layout.sharp"
            )

    def folder_of(self, split: str) -> str:
        """What `{split}` stands for in the patterns; empty when they do not use it, so that all splits share."""
        used = any("{split}" in pattern for pattern in (self.layout.spikes, self.layout.blurry or ""))
        return (self.splits[split].folder or split) if used else ""

    def format_of(self, split: str) -> SpikeFormat | AutoFormat | None:
        """The spike format declared for a split, before any `layout.format` file."""
        return self.split_spikes.get(split, self.spikes)


def read_manifest(path_or_name: str | Path, overrides: Sequence[str] = ()) -> Manifest:
    """Read a manifest file, or a shipped manifest by its bare name (`gopro_spike`).

    Args:
        overrides: `spikes.height=360`, applied to what the file says.

    Raises:
        ConfigError: no such manifest, or one with problems, all of them listed.
    """
    path = Path(path_or_name)
    if path.suffix not in (".yaml", ".yml") and path.name == str(path_or_name):
        path = _shipped(path.name)
    source = " ".join([str(path), *(["with", *overrides] if overrides else [])])
    return build(Manifest, apply_overrides(read_yaml(path), overrides), source)


def _shipped(name: str) -> Path:
    known = sorted(file.stem for file in SHIPPED.glob("*.yaml"))
    if name in known:
        return SHIPPED / f"{name}.yaml"
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {close[0]}?" if close else "give one of these, or the path of a .yaml file"
    raise ConfigError(f"manifest {name!r} is not one of {', '.join(known) or 'none'}", hint)
