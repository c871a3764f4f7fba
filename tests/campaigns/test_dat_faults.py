"""Damaged spike files: what happens to a `.dat` between the camera and the store, and whether it is noticed.

What cannot be noticed: a few flipped bits before the ingest; whole frames missing at the very beginning or end of a
file that declares no `num_frames` and whose log does not reach there; frames lost from streams that fire at random, in
saturated light, or so seldom that hardly a pixel fires twice within three frames; and, of small pictures, a wrong shape
that is smooth nearly as well as the right one.
"""

import functools
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from pipeline.config import build
from pipeline.dat import open_spikes, write_dat
from pipeline.errors import SpkError, StoreError
from pipeline.examine import examine_recording
from pipeline.images import write_png
from pipeline.ingest import ingest
from pipeline.logs.timestamps import write_log
from pipeline.manifest import Manifest
from pipeline.recognition.continuity import CHANCE, RISE, SPREADS, find_breaks
from pipeline.recognition.geometry import BEATEN_BY, check_geometry, detect_geometry
from pipeline.recordings import find_recordings
from pipeline.simulation.rig import RigConfig, film
from pipeline.simulation.scenes import SceneConfig, random_scene
from pipeline.spans import nanoseconds
from pipeline.spike_format import SpikeFormat
from pipeline.store import open_store

SEED = 20261124
SMALL, FULL, FULL_CLEAN = 4, 500, 200
SIZES = ((64, 96), (72, 64), (96, 128), (120, 80), (64, 64))
RIG = RigConfig(num_frames=3, exposure_frames=32, gap_frames=4)


@dataclass(frozen=True)
class Made:
    """A recording of a generated scene: its spikes (T, H, W), laid out by `format`, and its frames."""

    folder: Path
    format: SpikeFormat
    spikes: np.ndarray

    @property
    def stream(self) -> Path:
        return self.folder / "train/s/spikes.dat"

    @property
    def manifest(self) -> Manifest:
        layout = {
            "spikes": "{split}/{sequence}/spikes.dat",
            "blurry": "{split}/{sequence}/blurry/{frame}.png",
            "log": "{split}/{sequence}/log.csv",
        }
        values = {"name": "made", "layout": layout, "splits": {"train": {}}}
        rule = {"exposure": {"rule": "log"}, "spikes": {"height": 1, "width": 8, "rate_hz": 1}}
        return replace(build(Manifest, values | rule, "made"), spikes=self.format)

    def alarms(self) -> list[str]:
        """What an ingest would say: an error, or frames set aside."""
        try:
            (recording,) = find_recordings(self.manifest, self.folder)
            _, problems = examine_recording(recording, self.manifest)
        except SpkError as error:
            return [error.problem]
        return [f"{problem.path}: {problem.reason}" for problem in problems]


@functools.lru_cache(maxsize=4 * SMALL)
def shoot(number: int, *, whole_bytes: bool = False) -> tuple[SpikeFormat, np.ndarray, np.ndarray]:
    """Film scene `number`: file layout, spikes (T, H, W) and blurry frames (N, 3, H, W), all drawn from the number."""
    rng = np.random.default_rng([SEED, number])
    height, width = SIZES[rng.integers(len(SIZES))]
    scene = random_scene(SceneConfig(height=height, width=width), rng)
    shot = film(scene, RIG, rng)
    odd = not whole_bytes and rng.random() < 0.3
    height, width = (height - 1, width - 1) if odd else (height, width)
    fmt = SpikeFormat(
        height=height,
        width=width,
        rate_hz=RIG.rate_hz,
        bit_order=("lsb", "msb")[rng.integers(2)],
        flip=("vertical", "none")[rng.integers(2)],
        padding=("frame", "end")[rng.integers(2)] if odd else "none",
    )
    return fmt, shot.spikes[:, :height, :width], shot.blurry[:, :, :height, :width]


def make(folder: Path, number: int, *, whole_bytes: bool = False) -> Made:
    """Lay scene `number` down in files."""
    fmt, spikes, blurry = shoot(number, whole_bytes=whole_bytes)
    made = Made(folder, fmt, spikes)
    write_dat(made.stream, made.spikes, fmt)
    names = [f"{k:03d}" for k in range(RIG.num_frames)]
    for name, image in zip(names, blurry, strict=True):
        write_png(folder / f"train/s/blurry/{name}.png", image)
    edges = [[nanoseconds(int(edge), Fraction(RIG.rate_hz)) for edge in span] for span in RIG.spans]
    write_log(folder / "train/s/log.csv", names, *np.array(edges).T)
    return made


def recordings(tmp_path: Path, count: int, **options: bool) -> Iterator[tuple[Made, np.random.Generator]]:
    for number in range(count):
        yield make(tmp_path / str(number), number, **options), np.random.default_rng([SEED, number, 1])


@pytest.fixture(params=[SMALL, pytest.param(FULL, marks=pytest.mark.slow)])
def count(request) -> int:
    return request.param


@pytest.mark.parametrize("clean", [SMALL, pytest.param(FULL_CLEAN, marks=pytest.mark.slow)])
def test_clean_recordings_raise_no_alarm(tmp_path, clean, campaign):
    alarms = [alarm for made, _ in recordings(tmp_path, clean) for alarm in made.alarms()]
    campaign("clean streams", n=clean, false_alarms=len(alarms), seed=SEED)
    assert alarms == []


def test_clean_recordings_are_read_unaided(tmp_path, count, campaign):
    undecided, wrong = 0, []
    for made, _ in recordings(tmp_path, count):
        try:
            found = detect_geometry(made.stream).reading
        except SpkError:
            undecided += 1
            continue
        right = {"height", "width", "bit_order", "padding"}
        if any(getattr(found, name) != getattr(made.format, name) for name in right):
            wrong.append((made.format, found))
    campaign(
        "geometry unaided",
        n=count,
        detected=count - undecided - len(wrong),
        undecided=undecided,
        wrong=len(wrong),
        seed=SEED,
    )
    assert wrong == []


def test_a_file_cut_short_or_with_a_byte_lost_is_refused(tmp_path, count, campaign):
    silent = []
    for kind in ("cut short", "byte lost", "byte too many"):
        detected = 0
        for made, rng in recordings(tmp_path / kind, count):
            data = made.stream.read_bytes()
            at = int(rng.integers(1, len(data) - 1))
            damaged = {
                "cut short": data[:at],
                "byte lost": data[:at] + data[at + 1 :],
                "byte too many": data[:at] + b"\0" + data[at:],
            }[kind]
            made.stream.write_bytes(damaged)
            is_found = bool(made.alarms())
            detected += is_found
            silent += [] if is_found else [(kind, made.format, at)]
        campaign(f".dat {kind}", n=count, detected=detected, silent=count - detected, seed=SEED)
    assert silent == []


@pytest.mark.parametrize("kind", ["dropped", "duplicated"])
def test_a_frame_dropped_or_duplicated_is_found_at_its_place(tmp_path, count, kind, campaign):
    found, below, silent = 0, 0, []
    for made, rng in recordings(tmp_path, count):
        at = int(rng.integers(2, len(made.spikes) - 2))
        repeated = kind == "duplicated"
        copies = np.ones(len(made.spikes), int)
        copies[at] = 2 if repeated else 0
        write_dat(made.stream, np.repeat(made.spikes, copies, axis=0), made.format)
        breaks = find_breaks(open_spikes(made.stream, made.format))
        is_found = [(one.frame, one.is_repeat) for one in breaks] == [(at + repeated, repeated)]
        if is_found and any(str(made.stream) in alarm for alarm in made.alarms()):
            found += 1
        elif not repeated and not breaks and leaves_no_trace(made.spikes, at):
            below += 1
        else:
            silent.append((made.folder.name, made.format, at, breaks))
    campaign(f"spike frame {kind}", n=count, detected=found, below=below, silent=len(silent), seed=SEED)
    assert silent == [] and below <= 0.05 * count


def leaves_no_trace(spikes: np.ndarray, lost: int) -> bool:
    """Whether so few pixels fire in both frames beside a lost one that noise would explain it: the light is too dim."""
    before, after = spikes[lost - 1], spikes[lost + 1]
    shares = [(a & b).sum() / max(a.sum(), 1) for a, b in itertools.pairwise(spikes)]
    usual, spread = np.median(shares), 1.4826 * np.median(np.abs(shares - np.median(shares)))
    chance = CHANCE * np.sqrt(usual * before.sum() + 1) / before.sum()
    return bool((before & after).sum() / before.sum() <= usual + max(RISE, SPREADS * spread, chance))


def test_a_declared_number_of_frames_shows_what_the_content_does_not(tmp_path, count, campaign):
    for made, rng in recordings(tmp_path, count):
        short = int(rng.integers(1, 5))
        write_dat(made.stream, made.spikes[:-short], made.format)
        told = replace(made, format=replace(made.format, num_frames=len(made.spikes))).alarms()
        assert any(f"{len(made.spikes)} were declared" in alarm for alarm in told)
    campaign("frames missing at the end, declared", n=count, detected=count, silent=0, seed=SEED)


def test_a_wrong_width_or_height_is_refused(tmp_path, count, campaign):
    tried, near, silent = 0, 0, []
    for made, rng in recordings(tmp_path, count):
        wrong = wrong_readings(made)
        for fmt in (wrong[i] for i in rng.permutation(len(wrong))[:4]):
            tried += 1
            try:
                found = check_geometry(made.stream, fmt)
            except SpkError:
                continue
            if check_geometry(made.stream, made.format).score - found.score <= BEATEN_BY:
                near += 1  # nearly as good a picture as the right one: not questioned
            else:
                silent.append((made.folder.name, made.format, fmt))
    counts = {"detected": tried - near - len(silent), "near": near, "silent": len(silent)}
    campaign("wrong W x H or bit order", n=tried, **counts, seed=SEED)
    assert silent == [] and near <= 0.01 * tried


def wrong_readings(made: Made) -> list[SpikeFormat]:
    """Other ways to cut the file into whole frames no longer than eight times their width, and the other bit order."""
    right, bits = made.format, 8 * made.stream.stat().st_size
    pairs = [(h, right.pixels // h) for h in range(16, 513) if right.pixels % h == 0]
    pairs += [(right.height * m, right.width) for m in (2, 3, 4)] + [(right.height // 2, right.width)]
    pairs += [(right.height, right.width // 2), (right.height, right.width * 2)]
    sizes = {(h, w) for h, w in pairs if max(h, w) <= 8 * min(h, w) and (h, w) != (right.height, right.width)}
    others = [replace(right, height=h, width=w) for h, w in sorted(sizes)]
    fits = [
        fmt
        for fmt in others
        if not (fmt.pixels % 8 and fmt.padding == "none")
        and bits % fmt.frame_bits < (8 if fmt.padding == "end" else 1)
    ]
    return [*fits, replace(right, bit_order="msb" if right.bit_order == "lsb" else "lsb")]


def test_bits_flipped_after_the_ingest_are_refused_when_read(tmp_path, count, campaign):
    made = make(tmp_path / "raw", 0, whole_bytes=True)
    store = tmp_path / "store"
    ingest(made.folder, store, made.manifest, workers=1)
    shards = sorted(path for path in store.rglob("c/**/*") if path.is_file())
    rng, silent = np.random.default_rng(SEED), []
    for _ in range(count):
        shard = shards[rng.integers(len(shards))]
        data = bytearray(shard.read_bytes())
        bit = int(rng.integers(8 * len(data)))
        data[bit // 8] ^= 1 << bit % 8
        whole = shard.read_bytes()
        shard.write_bytes(data)
        try:
            read_all(store)
            silent.append((shard, bit))
        except StoreError:
            pass
        shard.write_bytes(whole)
    read_all(store)
    campaign(
        "bits flipped after the ingest", n=count, detected=count - len(silent), silent=len(silent), seed=SEED
    )
    assert silent == []


def read_all(path: Path) -> None:
    from pipeline.storage.mapped import forget_maps

    forget_maps(path)
    sequence = open_store(path).sequence("train", "s")
    tables = (sequence.exposure, sequence.exposure_ns, sequence.sharp_index)
    assert all(len(table) for table in tables) and sequence.blurry is not None
    for array in (sequence.spikes, sequence.blurry):
        assert array[:].size


def test_the_readings_that_are_tried_are_wrong(tmp_path):
    made = make(tmp_path, 1)
    readings = wrong_readings(made)
    assert len(readings) > 2 and made.format not in readings
    assert len(set(itertools.chain(readings))) == len(readings)
