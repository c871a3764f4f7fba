"""A user's own recording against the same one in a store, and what is wrong with it."""

import shutil
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from pipeline.dat import open_spikes, write_array, write_dat
from pipeline.errors import AlignmentError, FormatError
from pipeline.images import read_rgb, write_png
from pipeline.ingest import ingest
from pipeline.manifest import read_manifest
from pipeline.own_recording import open_own_recording
from pipeline.own_settings import OwnFiles
from pipeline.previews.preview import mean_light
from pipeline.spike_format import SpikeFormat
from pipeline.store import open_store
from pipeline.voxelize import voxelize

FORMAT = SpikeFormat(height=64, width=64, rate_hz=Fraction(4000))


@pytest.fixture
def own(moving_raw: Path, tmp_path: Path) -> OwnFiles:
    """A copy of one recording: five images, a stream of 256 spike frames, a log in ns."""
    folder = Path(shutil.copytree(moving_raw / "test" / "test_0000", tmp_path / "mine"))
    files = {"video": folder / "blurry", "spikes": folder / "spikes.dat", "log": folder / "exposures.csv"}
    return OwnFiles(**files, settings=("rate_hz=4000",))


@pytest.fixture(scope="module")
def stored(moving_raw, tmp_path_factory):
    """The same recording in a store, with voxel grids."""
    path = tmp_path_factory.mktemp("own") / "store"
    ingest(moving_raw, path, read_manifest("simulated"), workers=1)
    voxelize(path, num_bins=5, workers=1)
    return open_store(path).sequence("test", "test_0000")


def spikes_of(own: OwnFiles) -> np.ndarray:
    return open_spikes(own.spikes, FORMAT).read(0, 256)


def test_reads_what_a_store_would_hold(own, stored):
    recording = open_own_recording(own)
    assert recording.frames == stored.frames and recording.runs == stored.runs
    assert (recording.scale, recording.spike_shape) == (1, (64, 64))
    np.testing.assert_array_equal(recording.exposure, stored.exposure)
    np.testing.assert_array_equal(recording.exposure_ns, stored.exposure_ns)
    np.testing.assert_array_equal(recording.blurry[:], stored.blurry[:])
    np.testing.assert_array_equal(recording.spikes[10:90], stored.spikes[10:90])
    region = (slice(1, 4), slice(None), slice(8, 40), slice(16, 64))
    counts, expected = recording.voxels(5), stored.voxels("k5")
    np.testing.assert_array_equal(counts[region], expected[region])
    assert counts.dtype == expected.dtype and counts.shape == expected.shape
    check = recording.check_light()
    assert check.cause is None and check.median_r2 > 0.6
    fits = {name: round(fit.r2, 4) for name, fit in zip(stored.frames, stored.light, strict=True)}
    assert check.to_json()["r2"] == pytest.approx(fits, abs=1e-3)


def test_a_file_for_each_frame_reads_like_one_stream(own, tmp_path):
    whole, folder = open_own_recording(own), tmp_path / "streams"
    for name, (start, stop) in zip(whole.frames, whole.exposure.tolist(), strict=True):
        write_dat(folder / f"{name}.dat", spikes_of(own)[start:stop], FORMAT)
    parts = open_own_recording(replace(own, spikes=folder, log=None))
    np.testing.assert_array_equal(parts.voxels(4)[:], whole.voxels(4)[:])
    np.testing.assert_array_equal(
        parts.spikes[20:50], np.concatenate([whole.spikes[a:b] for a, b in whole.exposure.tolist()])[20:50]
    )
    np.testing.assert_allclose(parts.light(3), whole.light(3))


def test_frames_of_any_names_are_exposed_in_their_order(own):
    for k, path in enumerate(sorted(own.video.iterdir())):
        path.rename(path.with_name(f"shot {2 * k + 7}.png"))
    recording = open_own_recording(replace(own, log=None, settings=("window=32", "stride=48")))
    assert recording.frames == ("shot 7", "shot 9", "shot 11", "shot 13", "shot 15")
    assert recording.exposure.tolist() == [[48 * k, 48 * k + 32] for k in range(5)]
    assert recording.runs == ((0, 5),)
    assert recording.exposure_ns is None


def test_arrays_read_like_a_dat(own):
    path = own.spikes.with_suffix(".npy")
    write_array(path, spikes_of(own), replace(FORMAT, flip="none"))
    whole, array = open_own_recording(own), open_own_recording(replace(own, spikes=path))
    np.testing.assert_array_equal(array.voxels(4)[:], whole.voxels(4)[:])


def test_the_light_around_an_instant(own):
    recording = open_own_recording(own)
    start, stop = recording.exposure[2].tolist()
    assert stop - start == 32  # a sixth of which is fewer than 8
    stream = open_spikes(own.spikes, FORMAT)
    np.testing.assert_allclose(recording.light(2), mean_light(stream, start + 12, start + 20))
    np.testing.assert_allclose(recording.light(2, 0.0), mean_light(stream, start, start + 8))
    np.testing.assert_allclose(recording.light(2, 1.0), mean_light(stream, stop - 8, stop))


def test_another_bit_order_than_declared_is_refused_with_the_right_one(own):
    with pytest.raises(FormatError, match="makes no picture") as caught:
        open_own_recording(replace(own, settings=("rate_hz=4000", "height=64", "width=64", "bit_order=msb")))
    assert "spikes.height=64 spikes.width=64 spikes.bit_order=lsb" in caught.value.fix


def test_another_geometry_than_declared_is_refused(own):
    with pytest.raises(FormatError, match="64x64 is not a whole multiple of the 32x128 of the spikes"):
        open_own_recording(replace(own, settings=("rate_hz=4000", "height=32", "width=128")))


def test_images_of_another_size_are_refused(own):
    for path in own.video.iterdir():
        write_png(path, read_rgb(path)[:, :40])
    with pytest.raises(FormatError, match="40x64 is not a whole multiple of the 64x64 of the spikes"):
        open_own_recording(own)


def test_a_log_that_does_not_fit_is_refused_or_its_frames_left_out(own):
    text = own.log.read_text().splitlines()
    own.log.write_text("\n".join(text[:3] + text[4:]) + "\n")
    with pytest.raises(AlignmentError, match=r"frame 000002 .* has no row") as caught:
        open_own_recording(own)
    assert "--quarantine" in caught.value.fix
    recording = open_own_recording(own, quarantine=True)
    assert recording.frames == ("000000", "000001", "000003", "000004")
    assert recording.runs == ((0, 2), (2, 4)) and len(recording.problems) == 1


def test_exposures_outside_the_recording_are_refused(own, shift_log):
    shift_log(own.log.parent, 4000)
    with pytest.raises(AlignmentError, match="ends after the recording of 256"):
        open_own_recording(own)
    with pytest.raises(AlignmentError, match="no frame has a usable exposure"):
        open_own_recording(own, quarantine=True)


def test_frames_that_do_not_fit_their_spikes_are_noticed_with_the_cause(own):
    assert open_own_recording(own).check_light().cause is None
    names = sorted(own.video.iterdir())
    images = [read_rgb(path) for path in names]
    for path, image in zip(names, images, strict=True):
        write_png(path, np.ascontiguousarray(image[:, :, ::-1]))
    check = open_own_recording(own).check_light()
    assert check.cause == "the columns of the spikes are mirrored" and check.median_r2 < 0.6
