"""What users get wrong: each mistake ends in one readable error, and leaves nothing half-written."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from pipeline.yaml_files import dump_yaml, read_yaml

SEQUENCE = Path("train", "train_0000")


@dataclass(frozen=True)
class BadRaw:
    """A way to spoil recordings, and the words that the refusal must hold."""

    spoil: Callable[[Path], object]
    words: tuple[str, ...]
    code: int = 1


def cut(path: Path, keep: int) -> None:
    path.write_bytes(path.read_bytes()[:keep])


def replace_row(raw: Path, row: str) -> None:
    log = raw / SEQUENCE / "exposures.csv"
    lines = log.read_text().splitlines()
    log.write_text("\n".join([*lines[:2], row, *lines[3:]]) + "\n")


def declare(raw: Path, **changes: object) -> None:
    path = raw / SEQUENCE / "format.yaml"
    path.write_text(dump_yaml(read_yaml(path) | changes))


def copy_blurry(sequence: Path) -> None:
    shutil.copyfile(sequence / "blurry" / "000001.png", sequence / "sharp" / "000001.png")


def link_outside(raw: Path) -> None:
    stream = raw / SEQUENCE / "spikes.dat"
    outside = stream.rename(raw.parent / "outside.dat")
    stream.symlink_to(outside)


BAD_RAW = {
    "truncated stream": BadRaw(
        lambda raw: cut(raw / SEQUENCE / "spikes.dat", 1000),
        ("train_0000/spikes.dat", "1000 bytes", "288-byte frames (48x48)"),
    ),
    "empty stream": BadRaw(lambda raw: cut(raw / SEQUENCE / "spikes.dat", 0), ("spikes.dat", "empty")),
    "shorter than its format says": BadRaw(
        lambda raw: cut(raw / SEQUENCE / "spikes.dat", 288 * 40),
        ("spikes.dat", "holds 40", "64 were declared"),
    ),
    "shorter than the log says": BadRaw(
        lambda raw: (declare(raw, num_frames=None), cut(raw / SEQUENCE / "spikes.dat", 288 * 40)),
        ("000002", "40", "--quarantine"),
    ),
    "other geometry than the images": BadRaw(
        lambda raw: declare(raw, height=32, width=72), ("48x48", "32x72")
    ),
    "missing stream": BadRaw(
        lambda raw: (raw / SEQUENCE / "spikes.dat").unlink(), ("spikes.dat", "no such file")
    ),
    "missing sharp frame": BadRaw(
        lambda raw: (raw / SEQUENCE / "sharp" / "000001.png").unlink(),
        ("sharp/000001.png", "no such file", "--quarantine"),
    ),
    "missing log": BadRaw(
        lambda raw: (raw / SEQUENCE / "exposures.csv").unlink(), ("exposures.csv", "no such file")
    ),
    "malformed log row": BadRaw(
        lambda raw: replace_row(raw, "000001,soon,later"), ("exposures.csv:3", "soon")
    ),
    "reversed exposure": BadRaw(
        lambda raw: replace_row(raw, "000001,9000000,7000000"), ("exposures.csv:3", "9000000", "7000000")
    ),
    "exposure outside the recording": BadRaw(
        lambda raw: replace_row(raw, "000001,70000000000,70004000000"), ("000001", "--quarantine")
    ),
    "a typo in format.yaml": BadRaw(
        lambda raw: declare(raw, heigth=48), ("format.yaml", "heigth", "did you mean 'height'"), code=2
    ),
    "a sharp frame that is the blurry one": BadRaw(
        lambda raw: copy_blurry(raw / SEQUENCE), ("sharp/000001.png", "blurry", "missing_sharp")
    ),
    "a link that leads out": BadRaw(link_outside, ("spikes.dat", "outside.dat", "leads out"), code=2),
    "truncated header of the first image": BadRaw(
        lambda raw: cut(raw / SEQUENCE / "blurry" / "000000.png", 20), ("blurry/000000.png",)
    ),
}


@pytest.mark.parametrize("name", BAD_RAW)
def test_bad_recordings_are_refused_before_anything_is_written(
    name: str, raw: Path, tmp_path: Path, spk
) -> None:
    bad = BAD_RAW[name]
    bad.spoil(raw)
    spk("ingest", raw, "-o", tmp_path / "store", "-m", "simulated", "--json").assert_fails(
        bad.code, *bad.words
    )
    assert not (tmp_path / "store").exists()


def test_a_bad_image_leaves_a_store_that_is_refused_and_resumes(
    raw: Path, made_raw: Path, tmp_path: Path, spk
) -> None:
    bad, store = raw / SEQUENCE / "sharp" / "000002.png", tmp_path / "store"
    cut(bad, bad.stat().st_size // 2)
    ingest = ("ingest", raw, "-o", store, "-m", "simulated", "--json")
    spk(*ingest).assert_fails(1, str(bad))
    for command in (
        ("voxelize", store),
        ("inspect", store),
        ("train", "tiny", f"store={store}", "-o", tmp_path / "r"),
    ):
        spk(*command).assert_fails(1, str(store))
    assert not list(store.glob("**/*.partial")) and not (tmp_path / "r").exists()
    shutil.copyfile(made_raw / bad.relative_to(raw), bad)
    report = spk(*ingest).json
    assert report["sequences"] == 4 and report["skipped"] > 0
    assert spk("voxelize", store, "--bins", 4, "--json").json["frames"] == 12


def test_a_declared_geometry_is_compared_with_what_the_bits_show(
    shared_data: Path, tmp_path: Path, spk
) -> None:
    """2,534,400 bytes are 88 frames of 360x640 and 80 of 396x640: only the picture tells."""
    shipped = Path(__file__).parents[2] / "data_manifests" / "gopro_pair.yaml"
    manifest = tmp_path / "wrong.yaml"
    manifest.write_text(shipped.read_text().replace("height: 360", "height: 396"))
    ran = spk("ingest", shared_data / "gopro_spike_pair", "-o", tmp_path / "store", "-m", manifest)
    ran.assert_fails(1, "000226.dat", "80 frames of 396x640", "88 frames of 360x640", "spk inspect")
    assert not (tmp_path / "store").exists()


def test_a_pattern_that_climbs_is_refused(raw: Path, tmp_path: Path, spk) -> None:
    shipped = Path(__file__).parents[2] / "data_manifests" / "simulated.yaml"
    manifest = tmp_path / "climbs.yaml"
    manifest.write_text(
        shipped.read_text().replace("'{split}/{sequence}/spikes", "'../{split}/{sequence}/spikes")
    )
    ran = spk("ingest", raw, "-o", tmp_path / "store", "-m", manifest)
    ran.assert_fails(2, "climbs.yaml", "../{split}/{sequence}/spikes.dat", "'..'")
    assert not (tmp_path / "store").exists()


WRONG_USE = {
    "unknown command": ("trian", 2, ("trian", "'train'")),
    "unknown option": ("ingest RAW -o OUT -m simulated --fast", 2, ("--fast", "spk ingest --help")),
    "missing option": ("ingest RAW -m simulated", 2, ("--out",)),
    "unknown manifest": ("ingest RAW -o OUT -m simulatde", 2, ("simulatde", "did you mean simulated")),
    "manifest that is not there": ("ingest RAW -o OUT -m my.yaml", 2, ("my.yaml", "no such file")),
    "no recordings": ("ingest EMPTY -o OUT -m simulated", 1, ("EMPTY", "no recordings of simulated")),
    "no folder": ("ingest NOWHERE -o OUT -m simulated", 1, ("NOWHERE", "no such folder")),
    "recordings of another data set": ("ingest RAW -o OUT -m gopro_spike", 1, ("gopro_spike", "GOPRO_Large")),
    "not a store to write to": ("ingest RAW -o RAW -m simulated", 2, ("RAW", "not a store")),
    "no workers": ("ingest RAW -o OUT -m simulated --workers 0", 2, ("--workers", "1")),
    "store that is not there": ("voxelize NOWHERE", 1, ("NOWHERE", "no store here", "spk ingest")),
    "no bins": ("voxelize STORE --bins 0", 2, ("--bins", "1")),
    "unknown codec": ("voxelize STORE --codec rar", 2, ("rar", "zstd")),
    "unknown config": ("train tinny store=STORE -o OUT", 2, ("tinny", "did you mean tiny")),
    "config that is not there": ("train my/base.yaml store=STORE -o OUT", 2, ("my/base.yaml", "base")),
    "unknown config key": ("train tiny store=STORE stepz=3 -o OUT", 2, ("stepz", "did you mean 'steps'")),
    "unknown nested key": (
        "train tiny store=STORE clip.corp=16 -o OUT",
        2,
        ("clip.corp", "did you mean 'crop'"),
    ),
    "override without value": ("train tiny store=STORE steps -o OUT", 2, ("'steps'", "dotted.key=value")),
    "number that YAML reads as text": (
        "train tiny store=STORE optim.lr=1e-4 -o OUT",
        2,
        ("optim.lr", "1.0e-4"),
    ),
    "config without a store": ("train tiny -o OUT", 2, ("store: missing", "store=STORE")),
    "training without a store": ("train tiny store=NOWHERE -o OUT", 1, ("NOWHERE", "no store here")),
    "unknown voxel grids": ("train tiny store=STORE voxels=k9 -o OUT", 1, ("'k9'", "voxels=k4")),
    "crop larger than the frames": (
        "train tiny store=STORE clip.crop=64 -o OUT",
        2,
        ("clip.crop=64", "48x48"),
    ),
    "resuming nothing": ("train tiny store=STORE -o OUT --resume", 2, ("OUT", "no run here")),
    "writing over a run": ("train tiny store=STORE -o RUN", 2, ("RUN", "--resume")),
    "checkpoint that is not there": ("evaluate NOWHERE STORE -o OUT", 1, ("NOWHERE", "no such checkpoint")),
    "a store for a checkpoint": ("evaluate STORE STORE -o OUT", 1, ("STORE", "no checkpoints")),
    "evaluating without a store": ("evaluate RUN NOWHERE -o OUT", 1, ("NOWHERE", "no store here")),
    "two stores": ("evaluate RUN STORE RAW -o OUT", 2, ("more than one store",)),
    "unknown split": ("evaluate RUN STORE --split tset -o OUT", 2, ("tset", "test")),
    "unknown split, dry": ("evaluate RUN STORE --split tset -o OUT --dry-run", 2, ("tset", "test")),
    "unknown protocol": ("evaluate RUN STORE --protocol best -o OUT", 2, ("best", "rgb8-all")),
    "comparison without a name": ("evaluate RUN STORE --compare x -o OUT", 2, ("NAME=CHECKPOINT",)),
    "nothing to simulate from": ("simulate NOWHERE -o OUT", 2, ("NOWHERE",)),
    "scenes that cannot be": ("simulate scenes -o OUT height=-8", 2, ("height", "-8")),
    "unknown scene setting": ("simulate scenes -o OUT rig.scael=2", 2, ("rig.scael", "did you mean 'scale'")),
    "demo with a typo": ("demo -o OUT stpes=3", 2, ("stpes", "did you mean 'steps'")),
    "demo with a typo in the scenes": (
        "demo -o OUT scenes.hieght=48",
        2,
        ("hieght", "did you mean 'height'"),
    ),
    "inspecting nothing": ("inspect NOWHERE", 2, ("NOWHERE", "no such file")),
}


@pytest.mark.parametrize("name", WRONG_USE)
def test_wrong_use_is_explained_and_does_nothing(
    name: str, made_raw: Path, store: Path, trained: Path, tmp_path: Path, spk
) -> None:
    line, code, words = WRONG_USE[name]
    places = {"RAW": made_raw, "STORE": store, "RUN": trained}
    places |= {place: tmp_path / place for place in ("OUT", "EMPTY", "NOWHERE")}
    places["EMPTY"].mkdir()
    for place, path in places.items():
        line = line.replace(place, str(path)) if place in line else line
    before = snapshot(made_raw.parent)
    expected = [str(places.get(word, word)) for word in words if word not in ("store=STORE",)]
    spk(*line.split()).assert_fails(code, *expected)
    assert not places["OUT"].exists() and snapshot(made_raw.parent) == before


def snapshot(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*")}
