"""Whatever bytes, values or words come in: our own error or success, at once, and in bounded memory."""

import contextlib
import copy
import functools
import hashlib
import io
import json
import logging
import os
import resource
import shutil
import signal
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from PIL import Image

from pipeline.config import build, from_overrides, load_config
from pipeline.dat import open_spikes
from pipeline.errors import SpkError
from pipeline.fingerprints import fingerprint_of
from pipeline.images import image_size, read_rgb
from pipeline.ingest import ingest
from pipeline.logs.timestamps import read_log
from pipeline.manifest import Manifest
from pipeline.overview import store_facts
from pipeline.recognition.geometry import check_geometry, rank_geometries
from pipeline.simulate import simulate_scenes
from pipeline.simulation.scenes import SceneConfig
from pipeline.spike_format import SpikeFormat
from pipeline.store import open_store
from pipeline.yaml_files import dump_yaml, parse_yaml, read_yaml

EXAMPLES = 25
EXAMPLES_IN_FULL = 2000
SEED = 20
MOST_CPU_SECONDS = 1.0
MOST_MORE_BYTES = 1 << 30
REPOSITORY = Path(__file__).parents[2]
MANIFESTS = sorted((REPOSITORY / "data_manifests").glob("*.yaml"))
PRESETS = sorted((REPOSITORY / "configs").glob("*.yaml"))


# What comes in


class StandIn(Enum):
    """Values that hypothesis itself cannot print."""

    HUGE = "a whole number of 6000 digits"
    DEEP = "3000 lists, one in the other"


LONG = "x" * 5000
ODD_WORDS = [
    *(
        "..",
        "../../etc/passwd",
        "/dev/zero",
        "é",
        "{split}",
        "{",
        "{0}",
        "{frame!r}",
        "(a+)+$",
        "(",
        "(?P<x>a)",
        "[",
    ),
    *(
        "*",
        "**/*",
        "*?[!",
        r"^(\d+)(?:_(\d+))?$",
        r"^GOPR\d+_(\d+)_\d+$",
        r"^(\w+\s?)*$",
        r"(\d)(a?){40}a{40}",
    ),
    *(
        "1e-4",
        "010",
        "12:30:00",
        "on",
        ".nan",
        "%s%n",
        "auto",
        "log",
        "every",
        "centred",
        "whole_file",
        "index",
    ),
    *("middle", "seconds", "csv", "1/3", "1e99", "test_only"),
]
ODD_TEXT = st.sampled_from(["", "a\0b", "a\nb", "\ud800", "\udcff", LONG, "9" * 5000, *ODD_WORDS])
WHOLE_NUMBERS = st.sampled_from([0, -1, 1, 2, 3, 16, 1 << 31, 1 << 63, 10**15, 10**400]) | st.integers()
FLOATS = st.sampled_from([0.5, -0.0, 1e308, 1e-308]) | st.floats()
SCALARS = st.one_of(
    ODD_TEXT, WHOLE_NUMBERS, FLOATS, st.text(max_size=8), st.sampled_from([True, False, None, *StandIn])
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(SCALARS, inner, max_size=3),
    max_leaves=6,
)
EDITS = st.lists(
    st.tuples(st.integers(0, 9999), st.sampled_from(["set", "drop", "rename", "wrap"]), VALUES), max_size=3
)
"""Changes to a tree of plain values: at the node of a number (modulo how many there are), what, with which value."""
PATCHES = st.tuples(
    st.lists(st.tuples(st.integers(0, 1 << 16), st.binary(min_size=1, max_size=4)), max_size=3),
    st.sampled_from([None] * 7 + [1]).flatmap(lambda cut: st.integers(0, 1 << 12) if cut else st.none()),
)
"""Changes to bytes: what is overwritten and where (modulo the length), and where they are cut off."""


def meant(value: Any) -> Any:
    """The value with its stand-ins replaced."""
    if isinstance(value, list):
        return [meant(item) for item in value]
    if isinstance(value, dict):
        return {16**5000 if isinstance(key, StandIn) else key: meant(item) for key, item in value.items()}
    if value is StandIn.DEEP:
        return functools.reduce(lambda inner, _: [inner], range(3000), 1)
    return 16**5000 if value is StandIn.HUGE else value


def edited(tree: Any, edits: list[tuple[int, str, Any]]) -> Any:
    """A copy of a tree of plain values with some nodes replaced, dropped, renamed or put into a list."""
    tree = copy.deepcopy(tree)
    for number, kind, value in edits:
        places = list(_places(tree))
        if not places:
            continue
        parent, key = places[number % len(places)]
        if kind == "set":
            parent[key] = meant(value)
        elif kind == "wrap":
            parent[key] = [parent[key]]
        elif kind == "drop":
            del parent[key]
        elif isinstance(parent, dict):
            parent[str(value)[:50] if isinstance(value, str) else f"{key}s"] = parent.pop(key)
    return tree


def _places(tree: Any) -> Iterator[tuple[Any, Any]]:
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in list(items):
        yield tree, key
        yield from _places(value) if isinstance(value, dict) else ()


def patched(data: bytes, patches: tuple[list[tuple[int, bytes]], int | None], first: int = 1 << 16) -> bytes:
    """Some bytes with others in their place among the `first` ones, or cut short."""
    spoilt, (changes, end) = bytearray(data), patches
    for place, new in changes:
        start = place % min(len(data), first)
        spoilt[start : start + len(new)] = new
    return bytes(spoilt[: None if end is None else end % (len(data) + 1)])


FORMATS = st.builds(
    SpikeFormat,
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    rate_hz=st.just(Fraction(1000)),
    bit_order=st.sampled_from(["lsb", "msb"]),
    flip=st.sampled_from(["vertical", "none"]),
    padding=st.sampled_from(["none", "frame", "end"]),
    axes=st.sampled_from(["THW", "TWH", "HTW", "HWT", "WTH", "WHT"]),
    key=st.sampled_from([None, "a", "../a"]),
)
SMALL = np.random.default_rng(SEED).integers(0, 2, (6, 9, 8), dtype=np.uint8)
SMALL_FORMAT = SpikeFormat(height=9, width=8, rate_hz=Fraction(1000))


def _saved(write: Callable[[io.BytesIO], object]) -> bytes:
    file = io.BytesIO()
    write(file)
    return file.getvalue()


NPY = _saved(lambda file: np.save(file, SMALL))
NPZ = [
    _saved(lambda file: np.savez(file, a=SMALL)),
    _saved(lambda file: np.savez_compressed(file, a=SMALL, b=SMALL)),
]
SHAPES = [
    *("(6,9,8)", "(10**15,9,8)", "(-1,9,8)", "(0,9,8)", "(1000000000000000,9,8)"),
    *("()", "6", "(6.0,9,8)", "(True,9,8)", "(2,-3,-72)"),
]
SIDES = st.lists(st.sampled_from([0, 1, -1, 9, 8, 1 << 31, 1 << 63, 10**15]), max_size=4)
NPY_HEADERS = st.builds(
    "{{'descr': {}, 'fortran_order': {}, 'shape': {}, }}".format,
    st.sampled_from(
        [
            "'|u1'",
            "'|b1'",
            "'|O'",
            "'<f8'",
            "'|V9'",
            "[('a','|O')]",
            "None",
            "'|u1",
            "9",
            "'>U99'",
            "('|u1',(2,))",
            "[]",
        ]
    ),
    st.sampled_from(["False", "True", "None", "'x'", "__import__('os')"]),
    st.sampled_from(SHAPES) | SIDES.map(tuple) | st.integers(0, 3000).map(lambda n: "(" * n + ")" * n),
)


def npy_of(header: str) -> bytes:
    text = header.encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + min(len(text), 65535).to_bytes(2, "little") + text + SMALL.tobytes()


PICTURE = Image.fromarray(np.random.default_rng(1).integers(0, 256, (12, 10, 3), dtype=np.uint8))
PICTURES = [
    (suffix, _saved(lambda file, kind=kind, mode=mode: PICTURE.convert(mode).save(file, kind)))
    for suffix, kind, mode in [
        (".png", "PNG", "RGB"),
        (".png", "PNG", "P"),
        (".png", "PNG", "RGBA"),
        (".jpg", "JPEG", "RGB"),
        (".bmp", "BMP", "RGB"),
        (".bmp", "BMP", "1"),
        (".tif", "TIFF", "RGB"),
        (".tif", "TIFF", "L"),
    ]
]
YAML_LINES = [
    *(
        "a: &x [1]",
        "b: *x",
        "<<: {a: 1}",
        "<<: *x",
        "a: 010",
        "a: on",
        "on: 1",
        "a: 12:30:00",
        "a: 1e-4",
        "a: 1",
        "\t",
    ),
    *(
        "a: 2024-13-45",
        "a: !!int x",
        "a: !!python/object/apply:os.system [id]",
        "a: !!binary x",
        "? [1]",
        "a:\n b:",
    ),
    *(
        "a: !!timestamp x",
        "a: !!set {x}",
        "a: !!omap [x]",
        "a: !!pairs [x]",
        "%YAML 9.9",
        "---",
        "...",
        "{a: " * 100,
    ),
    *(
        "[" * 100,
        "- " * 2000,
        "a: '",
        'a: "',
        r'a: "\ud800"',
        r'a: "\0"',
        "a: |",
        "a: >",
        "#",
        "a: 0x" + "f" * 5000,
    ),
    *(
        "a: " + "1" * 5000,
        "a: 190:20:30.15",
        "=: 1",
        "~: 1",
        "a: !!float y",
        "a: !!null z",
        "a: .inf",
        "2: 1",
        "'2': 1",
    ),
    *(
        "a: !<tag:yaml.org,2002:str> x",
        "a: 0b2",
        "a: " + "1:" * 400 + "1",
        "a: 1" + "_" * 900,
        "\ufeff",
        "a: \x85",
    ),
]
YAML_PIECES = st.sampled_from([f"{line}\n" for line in YAML_LINES])
LOG_LINES = [
    *(
        "frame,start_us,stop_us",
        "frame_idx,t0,t1,event_count,seq",
        "a,0,9",
        "1,0.0,0.0,3,s/q",
        "1,0.1,0.2,3,s/q",
    ),
    *(
        "9" * 5000 + ",1,2",
        "1" * 300 + ",1,2",
        "a,-1,2",
        "a,1e9,2",
        "a,nan,inf",
        ",,",
        "\0",
        "\r",
        "a,٣,٤",
        "²,1,2",
    ),
    *(
        "a,1,2,s",
        "split,scene,sub,frame,t0_idx,t1_idx,events",
        ">unix standard time stamp:1763626982s,598990us",
    ),
    *("Exp Time:13265 us,Gain:1", f"a,{'9' * 5000},2", f"a,0.{'9' * 5000},2", "\ufeff", f"a,1,{1 << 63}"),
]
LOG_PIECES = st.sampled_from([f"{line}\n" for line in LOG_LINES])


# What it goes through


@dataclass(frozen=True)
class Place:
    """Where the files of a campaign are, and a small data set with its store."""

    folder: Path
    raw: Path
    store: Path

    def file(self, name: str, data: bytes) -> Path:
        path = self.folder / name
        path.write_bytes(data)
        return path


def read_dat(place: Place, example: tuple[bytes, SpikeFormat]) -> None:
    data, fmt = example
    path = place.file("a.dat", data)
    _all_of(rank_geometries, path)
    check_geometry(path, fmt)
    assert -(-len(_read_spikes(path, fmt)) * fmt.frame_bits // 8) == len(data)


def read_npy(place: Place, data: bytes) -> None:
    assert len(_read_spikes(place.file("a.npy", data), SMALL_FORMAT)) <= len(data)


def read_npz(place: Place, example: tuple[bytes, str | None]) -> None:
    data, key = example
    fmt = SpikeFormat(height=9, width=8, rate_hz=Fraction(1000), key=key)
    assert len(_read_spikes(place.file("a.npz", data), fmt)) <= 6


def _read_spikes(path: Path, fmt: SpikeFormat) -> np.ndarray:
    stream = open_spikes(path, fmt)
    frames = stream.read(0, len(stream))
    assert frames.shape == stream.shape and frames.max(initial=0) <= 1
    stream.packed(0, len(stream)), stream.count(0, len(stream))
    return frames


def build_format(place: Place, edits: list[Any]) -> None:
    declared = {"height": 360, "width": 640, "rate_hz": 1920, "valid_columns": [0, 640], "padding": "none"}
    values = edited(declared, edits)
    build(SpikeFormat, values, "a")
    build(SpikeFormat, read_yaml(place.file("a.yaml", _yaml_of(values))), "a")


def use_manifest(place: Place, example: tuple[Path, list[Any]]) -> None:
    path, edits = example
    values = edited(yaml.safe_load(path.read_text()), edits)
    _all_of(build, Manifest, values, "a")
    manifest = build(Manifest, read_yaml(place.file("a.yaml", _yaml_of(values))), "a")
    ingest(place.raw, place.folder / "out", manifest, quarantine=True, dry_run=True)


def build_manifest(place: Place, values: Any) -> None:
    build(Manifest, meant(values), "a")


def use_config(place: Place, example: tuple[Path, list[Any], list[str]]) -> None:
    from model.training.config import TrainConfig

    path, edits, overrides = example
    values = edited(yaml.safe_load(path.read_text()), edits)
    file = place.file("a.yaml", _yaml_of(values))
    _all_of(load_config, TrainConfig, file, overrides)
    from_overrides(SceneConfig, overrides)


def read_yaml_bytes(place: Place, data: bytes) -> None:
    value = read_yaml(place.file("a.yaml", data))
    assert read_yaml(place.file("a.yaml", dump_yaml(value).encode())) == value or value != value


def read_override(place: Place, text: str) -> None:
    parse_yaml(f"value: {text}", "a")


def read_log_bytes(place: Place, data: bytes) -> None:
    path = place.file("a.csv", data)
    assert all(row.start_ns < row.stop_ns for row in read_log(path, quarantine=True).rows)
    read_log(path)


def read_image(place: Place, example: tuple[tuple[str, bytes], Any]) -> None:
    (suffix, data), patches = example
    path = place.file(f"a{suffix}", patched(data, patches))
    height, width = image_size(path)
    assert read_rgb(path).shape == (3, height, width)


def read_store(place: Place, example: tuple[str, list[Any], bool]) -> None:
    """Change a `zarr.json` and make all that stands above it agree, as an attacker would; or only the first."""
    name, edits, is_consistent = example
    changed = {place.store / name / "zarr.json", place.store / "zarr.json"}
    originals = {path: path.read_bytes() for path in changed}
    try:
        _forge(place.store, name, edits, is_consistent)
        store_facts(open_store(place.store))
    finally:
        for path, data in originals.items():
            path.write_bytes(data)


def _forge(store: Path, name: str, edits: list[Any], is_consistent: bool) -> None:
    node, root = store / name / "zarr.json", store / "zarr.json"
    changed = edited(json.loads(node.read_text()), edits)
    if node != root:
        node.write_text(_json_of(changed))
        changed = json.loads(root.read_text())
    changed = json.loads(_json_of(changed))
    if is_consistent and isinstance(changed.get("attributes"), dict):
        attributes = changed["attributes"]
        if node != root:
            digests = attributes["stages"]["ingest"]["sequences"][FIRST]
            digests[name] = hashlib.sha256(node.read_bytes()).hexdigest()
        attributes.pop("checksum", None)
        attributes["checksum"] = fingerprint_of(attributes)
    root.write_text(_json_of(changed))


def _json_of(value: Any) -> str:
    try:
        return json.dumps(value, indent=1) + "\n"
    except (ValueError, TypeError, RecursionError):  # it has no text
        return "{}"


def _yaml_of(value: Any) -> bytes:
    try:
        return dump_yaml(value).encode("utf-8", "surrogatepass")
    except (ValueError, RecursionError, yaml.YAMLError):  # it has no text
        return b"a: 1"


def _all_of(call: Callable[..., object], *arguments: Any) -> None:
    with contextlib.suppress(SpkError):
        call(*arguments)


@dataclass(frozen=True)
class Target:
    """Examples, and what they go through."""

    examples: st.SearchStrategy[Any]
    use: Callable[[Place, Any], None]


FIRST = "train/train_0000"
NODES = ["", "train", FIRST, f"{FIRST}/spikes", f"{FIRST}/blurry", f"{FIRST}/exposure"]
SETTINGS = [
    "steps",
    "optim.lr",
    "clip.crop",
    "store",
    "network.embed_dims",
    "a.b",
    "rig.scale",
    "height",
    ".",
    "train",
]
OVERRIDES = st.lists(
    st.builds(
        "{}={}".format,
        st.sampled_from(SETTINGS),
        st.one_of(ODD_TEXT, YAML_PIECES, st.text(max_size=6)),
    )
    | st.text(max_size=12),
    max_size=3,
)  # fmt: skip
TARGETS = {
    "dat": Target(st.tuples(st.binary(max_size=4096), FORMATS), read_dat),
    "dat of any size": Target(st.tuples(st.integers(0, 1 << 18).map(lambda n: b"\x55" * n), FORMATS), read_dat),
    "npy": Target(PATCHES.map(lambda patches: patched(NPY, patches, first=140)), read_npy),
    "npy headers": Target(NPY_HEADERS.map(npy_of), read_npy),
    "npz": Target(
        st.tuples(st.builds(patched, st.sampled_from(NPZ), PATCHES), st.sampled_from([None, "a", "b"])), read_npz
    ),
    "spike format": Target(EDITS, build_format),
    "manifests": Target(st.tuples(st.sampled_from(MANIFESTS), EDITS), use_manifest),
    "generated manifests": Target(VALUES, build_manifest),
    "configs": Target(st.tuples(st.sampled_from(PRESETS), EDITS, OVERRIDES), use_config),
    "yaml bytes": Target(st.binary(max_size=200), read_yaml_bytes),
    "yaml pieces": Target(st.lists(YAML_PIECES, max_size=12).map(lambda p: "".join(p).encode()), read_yaml_bytes),
    "overrides": Target(st.one_of(YAML_PIECES, ODD_TEXT, st.text()), read_override),
    "logs": Target(
        st.lists(LOG_PIECES | st.text(max_size=10), max_size=12).map(lambda p: "".join(p).encode("utf-8", "replace")),
        read_log_bytes,
    ),
    "images": Target(st.tuples(st.sampled_from(PICTURES), PATCHES), read_image),
    "stores": Target(st.tuples(st.sampled_from(NODES), EDITS, st.booleans()), read_store),
}  # fmt: skip


COMMANDS = [
    "ingest",
    "voxelize",
    "train",
    "evaluate",
    "inspect",
    "simulate",
    "demo stpes=1",
    "verify",
    "",
    "--version",
]
OPTIONS = [
    *(
        "-o",
        "--out",
        "-m",
        "--manifest",
        "--workers",
        "--dry-run",
        "--json",
        "-q",
        "--overwrite",
        "--quarantine",
    ),
    *(
        "--bins",
        "--name",
        "--codec",
        "--resume",
        "--split",
        "--protocol",
        "--compare",
        "--",
        "-",
        "--help",
        "--oops",
    ),
    *(
        "0",
        "-1",
        "9" * 5000,
        "k32",
        "tiny",
        "simulated",
        "store=NOWHERE",
        "steps=1",
        "=",
        "a=b=c",
        "",
        "é\udcff\x1b[2J",
    ),
]
PATHS = [
    "NOWHERE",
    "EMPTY",
    "PIPE",
    "PIPE.dat",
    "STORE",
    "STORE/zarr.json",
    "/dev/zero",
    "/proc/self/mem",
    LONG,
    "/",
]
LINES = st.tuples(
    st.sampled_from(COMMANDS), st.lists(st.sampled_from([*OPTIONS, *PATHS, *PATHS]), max_size=7)
)


# The campaign


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, small_scenes: list[str]) -> Place:
    folder = tmp_path_factory.mktemp("fuzz")
    place = Place(folder, folder / "raw", folder / "store")
    simulate_scenes(place.raw, from_overrides(SceneConfig, small_scenes))
    ingest(place.raw, place.store, _simulated())
    from model.training.config import TrainConfig  # noqa: F401 - loading torch is not an example's time and memory

    return place


def _simulated() -> Manifest:
    return build(Manifest, read_yaml(REPOSITORY / "data_manifests" / "simulated.yaml"), "simulated")


@pytest.fixture
def bounded_memory() -> Iterator[None]:
    """A limit on what the process may map: what would be unbounded raises MemoryError, which is not our error."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    in_use = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (in_use + MOST_MORE_BYTES, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


def _hang(*_: object) -> None:
    raise AssertionError(f"more than {5 * MOST_CPU_SECONDS} seconds of processor time: it hangs")


@pytest.fixture
def attack(
    made: Place, campaign: Callable[..., str], bounded_memory: None
) -> Iterator[Callable[[str, int], None]]:
    logging.disable()
    handler = signal.signal(signal.SIGPROF, _hang)

    def run(name: str, examples: int, target: Target | None = None) -> None:
        target, ended, slowest = target or TARGETS[name], Counter[str](), 0.0

        @seed(SEED)
        @settings(
            max_examples=examples,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
            phases=(Phase.generate, Phase.shrink),
        )
        @given(target.examples)
        def one(example: Any) -> None:
            nonlocal slowest
            signal.setitimer(signal.ITIMER_PROF, 5 * MOST_CPU_SECONDS)
            started = time.process_time()
            try:
                target.use(made, example)
                ended["accepted"] += 1
            except SpkError as error:
                ended["refused"] += 1
                assert len(str(error)) < 20_000 and str(error).encode("utf-8", "backslashreplace")
            except BaseException:
                ended["escaped"] += 1
                raise
            finally:
                signal.setitimer(signal.ITIMER_PROF, 0)
                slowest = max(slowest, time.process_time() - started)
            assert slowest < MOST_CPU_SECONDS, f"{slowest:.2f} s of processor time"

        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                one()
        finally:
            figures = {key: ended[key] for key in ("accepted", "refused", "escaped")}
            number = sum(ended.values())
            campaign(f"fuzz {name}", n=number, **figures, slowest_ms=round(slowest * 1e3), seed=SEED)

    yield run
    signal.signal(signal.SIGPROF, handler)
    logging.disable(logging.NOTSET)


EXIT_CODES = {0, 1, 2, 3, 4, 5, 75, 130}


@pytest.fixture
def command_lines(made: Place, spk: Callable[..., Any]) -> Target:
    """Words after `spk`, at places that are there or not."""
    places = {"NOWHERE": made.folder / "nowhere", "EMPTY": made.folder / "empty", "STORE": made.store}
    places |= {name: made.folder / name for name in ("PIPE", "PIPE.dat")}
    places["EMPTY"].mkdir(exist_ok=True)
    for name in ("PIPE", "PIPE.dat"):
        if not places[name].exists():
            os.mkfifo(places[name])
    out = made.folder / "written"

    def use(_: Place, line: tuple[str, list[str]]) -> None:
        command, words = line
        ran = spk(*command.split(), "-o", out, *(str(places.get(word, word)) for word in words))
        shutil.rmtree(out, ignore_errors=True)
        assert ran.code in EXIT_CODES and "this is a bug" not in ran.err and "Traceback" not in ran.err, (
            ran.err
        )
        assert "\x1b" not in ran.err + ran.out
        if ran.code:
            raise SpkError(ran.err[:1000])

    return Target(LINES, use)


@pytest.mark.parametrize("name", TARGETS)
def test_only_our_own_error_comes_out(name: str, attack: Callable[[str, int], None]) -> None:
    attack(name, EXAMPLES)


@pytest.mark.slow
@pytest.mark.parametrize("name", TARGETS)
def test_only_our_own_error_comes_out_in_full(name: str, attack: Callable[[str, int], None]) -> None:
    attack(name, EXAMPLES_IN_FULL)


def test_only_documented_exit_codes_come_out(attack: Callable[..., None], command_lines: Target) -> None:
    attack("command lines", EXAMPLES, command_lines)


@pytest.mark.slow
def test_only_documented_exit_codes_come_out_in_full(
    attack: Callable[..., None], command_lines: Target
) -> None:
    attack("command lines", EXAMPLES_IN_FULL, command_lines)
