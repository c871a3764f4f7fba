"""`simulate` as a whole: deterministic, resumable, and readable by its own manifest."""

import hashlib
import shutil
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from pipeline.align import align_recording
from pipeline.dat import open_spikes
from pipeline.errors import FormatError, UsageError
from pipeline.images import read_rgb, write_png
from pipeline.ingest import ingest
from pipeline.manifest import read_manifest
from pipeline.recordings import find_recordings, scale_of
from pipeline.simulate import simulate_scenes, simulate_video
from pipeline.simulation.camera import SpikeCamera
from pipeline.simulation.rig import RigConfig
from pipeline.simulation.scenes import SceneConfig
from pipeline.simulation.textures import random_texture
from pipeline.simulation.video_takes import VideoConfig
from pipeline.store import open_store
from pipeline.yaml_files import read_yaml

RIG = RigConfig(num_frames=2, exposure_frames=16, gap_frames=4, scale=2)
TINY = SceneConfig(height=32, width=32, train=2, val=1, test=1, objects=(1, 1), object_radius=(5, 8), rig=RIG)
ANIMATED = VideoConfig(height=32, width=32, reduce=1, speed=(3.0, 6.0), rig=RIG)


def digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def write_photos(folder: Path, count: int, side: int = 128) -> None:
    for index in range(count):
        texture = random_texture(np.random.default_rng(index), side, shapes=40)
        write_png(folder / f"photo {index}.png", np.round(texture * 255).astype(np.uint8))


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """Simulated once, in this process."""
    out = tmp_path_factory.mktemp("simulated") / "raw"
    report = simulate_scenes(out, TINY, seed=5)
    assert (report.sequences, report.frames, report.written, report.skipped) == (4, 8, 4, 0)
    assert report.to_json()["raw"] == str(out)
    return out


def test_any_number_of_workers_writes_the_same_bytes(made, tmp_path):
    simulate_scenes(tmp_path, TINY, seed=5, workers=2)
    assert digests(tmp_path) == digests(made)


def test_another_seed_writes_other_scenes(made, tmp_path):
    simulate_scenes(tmp_path, TINY, seed=6)
    ours, theirs = digests(made), digests(tmp_path)
    shared = [name for name in ours if name.endswith((".png", ".dat")) and ours[name] == theirs[name]]
    assert ours.keys() == theirs.keys() and not shared


def test_sequences_and_splits_share_no_scene(made):
    frames = [digest for name, digest in digests(made).items() if "/sharp/" in name]
    assert len(set(frames)) == len(frames)
    # and nothing that looks alike: the first frames of different sequences are unrelated
    sharp = [read_rgb(path).astype(float).ravel() for path in sorted(made.glob("*/*/sharp/000000.png"))]
    correlation = np.corrcoef(sharp)[np.triu_indices(4, 1)]
    assert np.abs(correlation).max() < 0.8


def test_an_interrupted_run_continues_to_the_same_bytes(made, tmp_path):
    out = tmp_path / "raw"
    shutil.copytree(made, out)
    lost = next((out / "train").iterdir())
    lost.rename(out / f".partial-train-{lost.name}")
    (out / f".partial-train-{lost.name}" / "spikes.dat").write_bytes(b"half")
    seen = []
    report = simulate_scenes(out, TINY, seed=5, progress=lambda *now: seen.append(now))
    assert (report.written, report.skipped) == (1, 3)
    assert seen == [(1, 1, lost.name)]
    assert digests(out) == digests(made)


def test_a_finished_run_does_nothing(made):
    before = {path: path.stat().st_mtime_ns for path in made.rglob("*")}
    assert simulate_scenes(made, TINY, seed=5).written == 0
    assert {path: path.stat().st_mtime_ns for path in made.rglob("*")} == before


def test_a_dry_run_counts_and_writes_nothing(made, tmp_path):
    report = simulate_scenes(tmp_path / "raw", TINY, dry_run=True)
    assert (report.sequences, report.written, report.skipped) == (4, 0, 0)
    assert not (tmp_path / "raw").exists()
    assert simulate_scenes(made, TINY, seed=5, dry_run=True).skipped == 4


def test_refuses_to_mix_settings(made):
    with pytest.raises(UsageError, match="seed differ"):
        simulate_scenes(made, TINY, seed=6)


def test_other_maps_in_the_same_file_are_another_simulation(tmp_path):
    maps, out = tmp_path / "maps.npy", tmp_path / "raw"
    np.save(maps, np.full((16, 16), 0.9))
    config = replace(TINY, val=0, test=0, train=1, rig=replace(RIG, camera=SpikeCamera(maps=maps)))
    assert simulate_scenes(out, config).written == 1
    assert simulate_scenes(out, config).skipped == 1
    digest = hashlib.sha256(maps.read_bytes()).hexdigest()
    for path, keys in (
        (out / "simulation.yaml", ("config", "rig", "camera")),
        (next(out.glob("*/*/camera.yaml")), ("camera",)),
    ):
        facts = read_yaml(path)
        for key in keys:
            facts = facts[key]
        assert (facts["maps"], facts["maps_sha256"]) == (str(maps), digest)
    np.save(maps, np.full((16, 16), 0.8))
    with pytest.raises(UsageError, match="config differ"):
        simulate_scenes(out, config)


@pytest.mark.parametrize("wrong", [{"seed": -1}, {"workers": 0}])
def test_refuses_impossible_numbers(tmp_path, wrong):
    with pytest.raises(UsageError, match="or more"):
        simulate_scenes(tmp_path, TINY, **wrong)


def test_its_own_manifest_reads_and_aligns_it(made):
    manifest = read_manifest("simulated")
    recordings = find_recordings(manifest, made)
    assert sorted(recording.split for recording in recordings) == ["test", "train", "train", "val"]
    for recording in recordings:
        streams = [open_spikes(path, recording.format) for path in recording.spike_paths]
        alignment = align_recording(recording, manifest, streams)
        assert not alignment.problems
        assert alignment.exposure.tolist() == RIG.spans.tolist()
        assert scale_of(recording, manifest) == 2


def test_spikes_add_up_to_the_blurry_picture(made):
    """Spikes x threshold over an exposure are its light: the two cameras agree on what they saw, and when."""
    for recording in find_recordings(read_manifest("simulated"), made):
        spikes = open_spikes(recording.spike_paths[0], recording.format)
        for path, (start, stop) in zip(recording.blurry_paths, RIG.spans, strict=True):
            grey = read_rgb(path).mean(axis=0).reshape(16, 2, 16, 2).mean(axis=(1, 3)) / 255
            light = 2.0 * spikes.read(start, stop).mean(axis=0)
            # at most a spike more or less in 16 frames, and the sensor's noise
            assert np.abs(light - grey).mean() < 0.08
            assert np.corrcoef(light.ravel(), grey.ravel())[0, 1] > 0.6


def test_stills_become_sequences_with_disjoint_splits(tmp_path):
    write_photos(tmp_path / "photos", 3)
    report = simulate_video(tmp_path / "photos", tmp_path / "raw", ANIMATED, seed=1)
    assert (report.sequences, report.written) == (3, 3)
    assert sorted(str(path.relative_to(tmp_path / "raw")) for path in (tmp_path / "raw").glob("*/*")) == [
        "test/000_photos_000002",
        "train/000_photos_000000",
        "val/000_photos_000001",
    ]
    assert len(find_recordings(read_manifest("simulated"), tmp_path / "raw")) == 3


def test_a_high_speed_recording_becomes_a_sequence(tmp_path):
    big = random_texture(np.random.default_rng(0), 128, shapes=60)
    for frame in range(45):
        moved = np.round(np.roll(big, -frame, axis=2) * 255).astype(np.uint8)
        write_png(tmp_path / "frames" / f"{frame:04d}.png", moved)
    config = VideoConfig(motion="recorded", fps=Fraction(4000), reduce=2, split="test", rig=RIG)
    report = simulate_video(tmp_path / "frames", tmp_path / "raw", config)
    assert report.written == 1
    (folder,) = (tmp_path / "raw" / "test").iterdir()
    # exposure 0 is frames 4 to 20 of the recording, its middle frame 12
    middle = np.roll(big, -12, axis=2).reshape(3, 64, 2, 64, 2).mean(axis=(2, 4)) * 255
    assert np.abs(read_rgb(folder / "sharp" / "000000.png") - middle).max() <= 1.01


def test_a_worker_s_complaint_reaches_the_user(tmp_path):
    write_photos(tmp_path / "photos", 4)
    (tmp_path / "photos" / "photo 2.png").write_bytes(b"no image")
    with pytest.raises(FormatError, match=r"photo 2\.png"):
        simulate_video(tmp_path / "photos", tmp_path / "raw", ANIMATED, workers=2)


def test_sharp_instants_come_to_the_store_through_the_log(tmp_path):
    stores = {}
    for name, sharp_at in (("middle", None), ("drawn", (0.0, 1.0))):
        rig = RigConfig(
            num_frames=6, exposure_frames=11, gap_frames=4, rate_hz=Fraction(1920), sharp_at=sharp_at
        )
        simulate_scenes(tmp_path / name, SceneConfig(height=16, width=16, train=1, val=0, test=0, rig=rig))
        (log,) = (tmp_path / name).glob("*/*/exposures.csv")
        assert log.read_text().startswith("frame,start_ns,stop_ns" + (",sharp_ns\n" if sharp_at else "\n"))
        ingest(tmp_path / name, tmp_path / f"{name}.zarr", read_manifest("simulated"), workers=1)
        (stores[name],) = open_store(tmp_path / f"{name}.zarr").sequences("train")
    start = stores["middle"].exposure[:, 0]
    assert (stores["middle"].sharp_index - start).tolist() == [5] * 6
    places = stores["drawn"].sharp_index - start
    assert len(set(places.tolist())) > 2 and places.min() >= 0 and places.max() < 11
    same = stores["drawn"].blurry[:] == stores["middle"].blurry[:]
    assert same.all() and (stores["drawn"].sharp[:] != stores["middle"].sharp[:]).any()
