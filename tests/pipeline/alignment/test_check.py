"""The alignment check on whole stores: simulated ones whose logs are off, and the real recordings there are."""

import shutil
from dataclasses import replace

import numpy as np
import pytest

from pipeline.alignment.check import check_alignment
from pipeline.errors import UsageError
from pipeline.images import read_rgb, write_png
from pipeline.ingest import ingest
from pipeline.manifest import Exposure, read_manifest
from pipeline.store import open_store


@pytest.fixture
def raw(moving_raw, tmp_path):
    return shutil.copytree(moving_raw, tmp_path / "raw")


def checked(raw, out, manifest="simulated", **options):
    manifest = read_manifest(manifest) if isinstance(manifest, str) else manifest
    ingest(raw, out, manifest, workers=1)
    return {one.key: one for one in check_alignment(open_store(out), **options)}


def test_logs_that_are_off_are_told_from_those_that_are_not(raw, tmp_path, shift_log):
    shift_log(raw / "train/train_0000", 3)
    shift_log(raw / "test/test_0000", 0, drift=2)
    found = checked(raw, tmp_path / "store")
    assert {key: one.verdict for key, one in found.items()} == {
        "train/train_0000": "shifted",
        "train/train_0001": "aligned",
        "test/test_0000": "drifting",
    }
    assert found["train/train_0000"].estimates.whole.offset == -3
    alone = [one for one in found["train/train_0000"].estimates.frames if one.verdict != "undecidable"]
    assert len(alone) >= 3 and {one.offset for one in alone} <= {-4, -3, -2}
    assert found["train/train_0001"].r2 > 0.8 and not found["train/train_0001"].is_off
    assert found["train/train_0000"].is_off and found["test/test_0000"].is_off


def test_a_static_scene_is_undecidable(tmp_path):
    from pipeline.config import from_overrides
    from pipeline.simulate import simulate_scenes
    from pipeline.simulation.scenes import SceneConfig

    still = ["object_speed=[0,0]", "background_speed=[0,0]", "object_spin=0", "background_spin=0"]
    rig = ["rig.num_frames=4", "rig.exposure_frames=32", "rig.gap_frames=16"]
    size = ["train=1", "val=0", "test=0", "height=64", "width=64"]
    simulate_scenes(tmp_path / "raw", from_overrides(SceneConfig, [*size, *still, *rig]))
    rng = np.random.default_rng(0)
    for path in (tmp_path / "raw/train/train_0000/blurry").iterdir():  # else they equal the sharp ones
        image = read_rgb(path) + rng.integers(-2, 3, (3, 64, 64))
        write_png(path, image.clip(0, 255).astype(np.uint8))
    (one,) = checked(tmp_path / "raw", tmp_path / "store").values()
    assert one.verdict == "undecidable" and one.r2 > 0.8


def test_any_number_of_workers_finds_the_same(moving_raw, tmp_path):
    one = checked(moving_raw, tmp_path / "store", workers=1)
    assert one == {found.key: found for found in check_alignment(open_store(tmp_path / "store"), workers=4)}


def test_sequences_may_be_chosen(moving_raw, tmp_path):
    assert checked(moving_raw, tmp_path / "store", only="train/*", sweep=4).keys() == {
        "train/train_0000",
        "train/train_0001",
    }
    with pytest.raises(UsageError, match="fits none of 3"):
        check_alignment(open_store(tmp_path / "store"), only="val/*")
    with pytest.raises(UsageError, match="at least 2"):
        check_alignment(open_store(tmp_path / "store"), sweep=1)


def test_a_constant_offset_in_the_manifest_mends_a_log(raw, tmp_path, shift_log):
    for key in ("train/train_0000", "train/train_0001", "test/test_0000"):
        shift_log(raw / key, 4)
    manifest = read_manifest("simulated")
    exposure = replace(manifest.exposure, offset_frames=-4)
    assert isinstance(exposure, Exposure)
    found = checked(raw, tmp_path / "store", replace(manifest, exposure=exposure))
    assert {one.verdict for one in found.values()} == {"aligned"}


def test_spikes_without_images_cannot_be_checked(raw, tmp_path, manifest_of):
    manifest = manifest_of(
        layout={"spikes": "{split}/{sequence}/spikes.dat"},
        spikes={"height": 64, "width": 64, "rate_hz": 4000},
        exposure={"rule": "every", "window": 32},
        blurry_from_spikes=2.0,
    )
    found = checked(raw, tmp_path / "store", manifest)
    assert {(one.verdict, one.r2) for one in found.values()} == {("undecidable", None)}


def test_the_real_gopro_frame_locates_its_spike_index(shared_data, tmp_path):
    for wrong in (0, 4, -5):
        manifest = read_manifest("gopro_pair")
        index = 40 + wrong
        manifest = replace(manifest, sharp=replace(manifest.sharp, index=index))
        (one,) = checked(
            shared_data / "gopro_spike_pair", tmp_path / f"store{wrong}", manifest, sweep=12
        ).values()
        assert abs(index + one.estimates.whole.best - 40) <= 1
        assert one.verdict == ("shifted" if wrong else "aligned")


def test_the_real_sreds_frames_are_where_their_names_say(shared_data, tmp_path):
    found = checked(shared_data / "sreds_t301_250x400", tmp_path / "store", "sreds_pairs")
    assert len(found) == 3
    for one in found.values():
        assert one.verdict == "aligned" and abs(one.estimates.whole.best) < 0.5


def test_the_five_timed_frames_of_a_nearly_static_scene(shared_data, tmp_path):
    """The first and the last are too near the ends of the recording of 41 spike frames."""
    manifest = read_manifest("sreds_pairs")
    manifest = replace(
        manifest,
        layout=replace(manifest.layout, spikes="{sequence}_key_id21.dat"),
        exposure=replace(manifest.exposure, window=13),
    )
    (one,) = checked(shared_data / "sreds_t41_250x400", tmp_path / "store", manifest).values()
    assert one.frames == ("7", "14", "21", "28", "35")
    alone = one.estimates.frames
    assert [frame.verdict == "undecidable" for frame in alone] == [True, False, False, False, True]
    assert all(abs(frame.offset) <= 1 and frame.best < 2 for frame in alone[1:4])
