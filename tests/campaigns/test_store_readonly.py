"""Stores where nothing may be written, under odd names, in other locales; recordings that changed."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipeline.storage.mapped import forget_maps
from pipeline.store import open_store
from tests.campaigns.disks import read_only
from tests.campaigns.server import REPOSITORY
from tests.campaigns.stores import tree_of, values_of

READING = {
    "inspect": "inspect STORE",
    "inspect --json": "inspect STORE --json",
    "inspect, picture": "inspect STORE -o PICTURE",
    "verify": "verify STORE",
    "verify --deep": "verify STORE --deep",
    "verify --json": "verify STORE --deep --json",
    "ingest, nothing to do": "ingest RAW -o STORE -m simulated",
    "ingest --dry-run": "ingest RAW -o STORE -m simulated --dry-run",
    "ingest --dry-run, changed": "ingest OTHER -o STORE -m simulated --dry-run",
    "voxelize, nothing to do": "voxelize STORE --bins 4",
    "voxelize --dry-run": "voxelize STORE --bins 7 --dry-run",
    "voxelize --dry-run --overwrite": "voxelize STORE --bins 4 --overwrite --dry-run",
}
WRITING = {
    "ingest": "ingest OTHER -o STORE -m simulated",
    "voxelize": "voxelize STORE --bins 7",
    "repair": "repair STORE",
}


PASSED: list[str] = []


@pytest.fixture(autouse=True)
def passed(request: pytest.FixtureRequest) -> Iterator[None]:
    """Count the cases of this process."""
    failed = request.session.testsfailed
    yield
    if request.session.testsfailed == failed:
        PASSED.append(request.node.name)


def state_of(folder: Path) -> dict[str, tuple[int, int, int]]:
    """Number, size and time of change of everything in a folder."""
    paths = [folder, *sorted(folder.rglob("*"))]
    states = {path: path.lstat() for path in paths}
    return {str(p.relative_to(folder)): (s.st_ino, s.st_size, s.st_mtime_ns) for p, s in states.items()}


def words_of(line: str, made, store: Path, folder: Path) -> list[str]:
    places = {"RAW": made.raw, "OTHER": made.other, "STORE": store, "PICTURE": folder / "picture.png"}
    return [str(places.get(word, word)) for word in line.split()]


@pytest.fixture
def store(made, tmp_path) -> Path:
    return made.copy("whole", tmp_path / "store")


@pytest.mark.parametrize("command", READING)
def test_commands_that_read_write_nothing(command, store, made, server, tmp_path):
    """Neither where they could, nor where they cannot."""
    before = state_of(store)
    ended = server.run(*words_of(READING[command], made, store, tmp_path))
    assert ended.code == 0, ended
    assert state_of(store) == before
    with read_only(store, tmp_path / "mounted") as mounted:
        with pytest.raises(OSError):
            (mounted / "a").touch()
        ended = server.run(*words_of(READING[command], made, mounted, tmp_path))
    assert ended.code == 0, ended
    assert state_of(store) == before and tree_of(store) == made.trees["whole"]


@pytest.mark.parametrize("command", WRITING)
def test_commands_that_write_say_that_they_cannot(command, store, made, server, tmp_path):
    if command == "repair":
        next(store.rglob("spikes/c/0/0/0")).write_bytes(b"damaged")
    before = state_of(store)
    with read_only(store, tmp_path / "mounted") as mounted:
        ended = server.run(*words_of(WRITING[command], made, mounted, tmp_path))
    assert ended.code in (1, 4) and not ended.crashed and "Read-only" in ended.err, ended
    assert state_of(store) == before


def test_values_and_clips_are_read_where_nothing_may_be_written(store, made, tmp_path):
    from pipeline.clips import ClipConfig, ClipSource

    before = state_of(store)
    with read_only(store, tmp_path / "mounted") as mounted:
        assert values_of(mounted) == made.values["whole"]
        source = ClipSource(open_store(mounted), "train", "k4", ClipConfig(num_frames=2, crop=32))
        source.batch(range(2), 0)
        del source
        forget_maps(mounted)
    assert state_of(store) == before


ODD = [
    "with spaces ",
    " and in front",
    "Größe, Übermaß, ß",
    "相机记录",
    "カメラ",
    "новая съёмка",
    "e\u0301 as two characters",
    "line\nbreak",
    "tab\there",
    "100%#?&=+;",
    "quotes'\"`$HOME",
    "[brackets] (and) {braces}",
    "star*",
    "back\\slash",
    "-o",
    "..hidden",
    "long" * 50,
    "\x1b[31mred",
]


@pytest.mark.parametrize("name", ODD, ids=ascii)
def test_odd_paths_are_built_verified_and_read(name, made, server, tmp_path):
    place = tmp_path / name
    raw, store = shutil.copytree(made.raw, place / "raw"), place / "store"
    for words in (
        ["ingest", raw, "-o", store, "-m", "simulated"],
        ["voxelize", store, "--bins", 4],
        ["verify", store, "--deep"],
        ["inspect", store],
    ):
        ended = server.run(*words)
        assert ended.code == 0, ended
        assert "\x1b[31mred" not in ended.out + ended.err
    assert values_of(store) == made.values["k4"]
    next(store.rglob("spikes/c/0/0/0")).unlink()
    assert server.run("verify", store).code == 4
    assert server.run("repair", store).code == 0
    assert values_of(store) == made.values["k4"]


@pytest.mark.parametrize("locale", ["C", "tr_TR.UTF-8", "de_DE.ISO-8859-1"])
def test_a_store_does_not_depend_on_the_locale(locale, made, tmp_path):
    """As the environment declares it: where the system does not have the locale, Python takes the plain one."""
    store = tmp_path / "Größe" / "store"
    environment = os.environ | {
        "LC_ALL": locale,
        "LANG": locale,
        "PYTHONUTF8": "0",
        "PYTHONCOERCECLOCALE": "0",
    }
    for words in (
        ["ingest", made.raw, "-o", store, "-m", "simulated"],
        ["voxelize", store, "--bins", "4"],
        ["verify", store, "--deep"],
    ):
        command = [sys.executable, "-m", "cli", *map(str, words)]
        done = subprocess.run(command, env=environment, cwd=REPOSITORY, capture_output=True)
        assert done.returncode == 0, done.stderr
    assert values_of(store) == made.values["k4"]


def flip_last_bit(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))


def copy_other(path: Path) -> None:
    other = next(one for one in sorted(path.parent.iterdir()) if one != path)
    shutil.copyfile(other, path)


def shift_log(path: Path) -> None:
    """Let every exposure end a spike frame earlier."""
    header, *rows = path.read_text().splitlines()
    values = [row.split(",") for row in rows]
    step = 250_000
    text = [",".join([*row[:-1], str(int(row[-1]) - step)]) for row in values]
    path.write_text("\n".join([header, *text]) + "\n")


CHANGED = {
    "a bit of the spikes": ("train/train_0000/spikes.dat", flip_last_bit),
    "spikes of another sequence": ("test/test_0000/spikes.dat", flip_last_bit),
    "a blurry frame": ("train/train_0001/blurry/000001.png", copy_other),
    "a sharp frame": ("train/train_0001/sharp/000002.png", copy_other),
    "the log": ("test/test_0000/exposures.csv", shift_log),
}


@pytest.mark.parametrize("what", CHANGED)
def test_changed_recordings_are_noticed(what, made, server, tmp_path):
    raw, store = shutil.copytree(made.raw, tmp_path / "raw"), tmp_path / "store"
    ingest = ["ingest", raw, "-o", store, "-m", "simulated"]
    assert server.run(*ingest).code == 0
    before = values_of(store)
    assert json.loads(server.run(*ingest, "--dry-run", "--json").out)["written"] == 0
    name, change = CHANGED[what]
    change(raw / name)
    assert json.loads(server.run(*ingest, "--dry-run", "--json").out)["written"] > 0
    assert values_of(store) == before
    assert server.run(*ingest).code == 0
    after = values_of(store)
    key = "/".join(name.split("/")[:2])
    changed = {place for place in after if after[place] != before[place]}
    assert changed and all(place.startswith(key) for place in changed)


def test_figures(campaign: Callable[..., str]) -> None:
    """How many of the cases above passed, of those that were run in this process."""
    if not PASSED:
        pytest.skip("none of the cases was run before this")
    campaign("read-only media, odd names, locales, changed recordings", passed=len(PASSED))
