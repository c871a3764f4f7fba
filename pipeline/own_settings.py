"""What a user tells of a recording: its files, and settings such as a manifest has, in the command or in one.

Files are not looked into here, but for the format file that a manifest names.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from pipeline.config import apply_overrides, build, to_plain
from pipeline.errors import ConfigError, UsageError
from pipeline.manifest import Exposure, Manifest
from pipeline.spike_format import AutoFormat, SpikeFormat
from pipeline.yaml_files import read_yaml

SPLIT = "recording"
GROUPS = ("spikes", "exposure", "scale", "continuity")
"""What of a manifest says how a recording is read."""
SHORT = {
    **{item.name: "spikes" for item in dataclasses.fields(SpikeFormat) if item.name != "num_frames"},
    **{item.name: "exposure" for item in dataclasses.fields(Exposure)},
}
"""Settings that may be given without the group they are in: `height` for `spikes.height`."""
Values = dict[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class OwnFiles:
    """The files of one recording.

    Attributes:
        video: of the RGB camera: a video file, or a folder of images.
        spikes: a spike file; or a folder of them, one for each RGB frame.
        log: when the RGB frames were exposed.
        manifest: a manifest file, or the name of a shipped one, of data that the recording is like.
        settings: `height=250 rate_hz=20000 …`: what a manifest would say, and goes before what it says.
        sequence: what the log, or a rule of the manifest, calls the recording; None for the name of its video.
    """

    video: Path
    spikes: Path
    log: Path | None = None
    manifest: str | None = None
    settings: tuple[str, ...] = ()
    sequence: str | None = None


def is_setting(text: str) -> bool:
    """Whether `key=value` is about how a recording is read."""
    group = text.partition("=")[0].partition(".")[0]
    return group in GROUPS or group in SHORT


def told_in(files: OwnFiles, group: str) -> Values:
    """The settings of one group, as told in the command."""
    found = apply_overrides({}, [_whole_key(text) for text in files.settings]).get(group, {})
    if not isinstance(found, Mapping):
        raise ConfigError(
            f"{group}: {found!r} is a value, and {group} a group of settings", f"{group}.NAME=VALUE"
        )
    return dict(found)


def _whole_key(text: str) -> str:
    group = SHORT.get(text.partition("=")[0].partition(".")[0])
    return f"{group}.{text}" if group else text


def _source(files: OwnFiles) -> str:
    named = [f"--manifest {files.manifest}"] if files.manifest else []
    return " ".join([*named, *files.settings]) or "settings"


@dataclass(frozen=True, kw_only=True, slots=True)
class _Declared:
    spikes: SpikeFormat | AutoFormat


def declared_format(
    files: OwnFiles, base: Manifest | None, spikes: Mapping[str, Path] | None
) -> tuple[SpikeFormat | AutoFormat, bool, bool]:
    """What is declared; whether that says which way up the rows are, and how many frames there are to a second."""
    told, values = told_in(files, "spikes"), {}
    if base is not None:
        folder = files.spikes if spikes is not None else files.spikes.parent
        beside = folder / PurePosixPath(base.layout.format or "").name
        if base.layout.format and beside.is_file():
            values = to_plain(build(SpikeFormat, read_yaml(beside), str(beside)))
        else:
            values = to_plain(base.spikes) or {}
    values |= told
    if told.keys() & {"height", "width"}:
        values.pop("geometry", None)
    if not values.keys() & {"height", "width"}:
        values["geometry"] = "auto"
    flip_told, is_timed = values.get("flip", "auto") != "auto", "rate_hz" in values
    values.setdefault("rate_hz", 1)
    if not flip_told and "geometry" not in values:  # the usual one
        values["flip"] = "vertical" if spikes or files.spikes.suffix.lower() == ".dat" else "none"
    return build(_Declared, {"spikes": values}, _source(files)).spikes, flip_told, is_timed


def told_exposure(files: OwnFiles, base: Manifest | None, *, one_each: bool) -> tuple[Values, bool]:
    """The exposure as plain values with a rule in any case, and whether it is the manifest's."""
    told, of_base = told_in(files, "exposure"), to_plain(base.exposure) if base else {}
    rule = told.get("rule")
    if files.log and rule not in (None, "log"):
        raise UsageError(
            f"--log {files.log}, and rule={rule}: which of them tells the exposures?", "leave one out"
        )
    rule = "log" if files.log else rule or of_base.get("rule") or ("whole_file" if one_each else "every")
    if rule == "log" and not files.log:
        raise UsageError(
            f"{_source(files)}: the exposures are told by a log (rule: log), and none is given",
            "add --log FILE",
        )
    from_manifest = of_base.get("rule") == rule
    values = apply_overrides(
        {"exposure": of_base if from_manifest else {}},
        [text for text in map(_whole_key, files.settings) if text.startswith("exposure.")],
    )["exposure"]
    return {**values, "rule": rule}, from_manifest


def fill_windows(exposure: Values, files: OwnFiles, spike_frames: int, rgb_frames: int) -> list[str]:
    """Compute window and stride that are not told, where that is a whole number; returns what was assumed."""
    each, over = divmod(spike_frames, rgb_frames)
    assumed = []
    if exposure.get("stride") is None:
        if over or not each:
            raise UsageError(
                f"{files.spikes}: {spike_frames} spike frames for the {rgb_frames} frames of {files.video} are no whole"
                " number for each: nothing says which were recorded while a frame was exposed",
                "give the log of the exposures, --log FILE; or window=W stride=S: each frame is exposed for W spike"
                " frames, S after the one before it",
            )
        exposure["stride"] = each
        assumed.append(
            f"the cameras began and ended together: {spike_frames} spike frames over {rgb_frames} RGB frames,"
            f" stride={each}"
        )
    if exposure.get("window") is None:
        exposure["window"] = exposure["stride"]
        assumed.append(f"each exposure lasts until the next one begins: window={exposure['window']}")
    return assumed


def manifest_of(files: OwnFiles, base: Manifest | None, fmt: SpikeFormat, exposure: Values) -> Manifest:
    """A manifest of this one recording; its layout names nothing, for the files are known."""
    told = apply_overrides({}, [_whole_key(text) for text in files.settings])
    others = {name: told.get(name, getattr(base, name, None)) for name in ("scale", "continuity")}
    layout = {"spikes": "{frame}.dat" if files.spikes.is_dir() else "spikes.dat", "blurry": "{frame}.png"}
    values = {
        "name": base.name if base else "of this command",
        "layout": layout | ({"log": "log"} if files.log else {}),
        "spikes": to_plain(fmt),
        "exposure": exposure,
        "splits": {SPLIT: {}},
        **{name: value for name, value in others.items() if value is not None},
    }
    return build(Manifest, values, _source(files))
