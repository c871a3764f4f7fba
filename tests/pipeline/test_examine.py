import os
import resource
from dataclasses import replace

import numpy as np
import pytest

from pipeline.dat import write_dat
from pipeline.errors import FormatError
from pipeline.examine import common_scale, examine_recording
from pipeline.images import write_png
from pipeline.recordings import find_recordings
from pipeline.spike_format import SpikeFormat


@pytest.fixture
def recording(raw):
    return find_recordings(raw.manifest, raw.root)[0]


def test_a_usable_recording_is_described(raw, recording):
    found, problems = examine_recording(recording, raw.manifest)
    assert problems == () and found.key == "train/a"
    assert found.spike_shape == (18, 20) and found.rgb_shape == (36, 40) and found.scale == 2
    assert found.files.lengths == (70,) and found.alignment.exposure.tolist() == [[0, 11], [11, 52], [60, 64]]
    assert found.blurry_paths == recording.blurry_paths and found.sharp_paths == recording.sharp_paths


def test_frames_outside_the_recording_are_set_aside_with_their_images(raw, recording):
    write_dat(recording.spike_paths[0], raw.spikes("train/a")[:55], recording.format)
    found, problems = examine_recording(recording, raw.manifest)
    assert found.alignment.frames == ("000", "001") and found.blurry_paths == recording.blurry_paths[:2]
    assert [p.path for p in problems] == [str(recording.blurry_paths[2])]
    assert "[60, 64) ends after the recording of 55" in problems[0].reason


def test_a_recording_without_usable_frames_is_none(raw, recording):
    write_dat(recording.spike_paths[0], raw.spikes("train/a")[:8], recording.format)
    found, problems = examine_recording(recording, raw.manifest)
    assert found is None and len(problems) == 3
    empty = replace(recording, frames=())
    assert examine_recording(empty, raw.manifest) == (None, ())


def test_any_image_of_another_size_is_refused_before_it_is_decoded(raw, recording):
    write_png(recording.sharp_paths[2], np.zeros((3, 36, 44), np.uint8))
    with pytest.raises(
        FormatError, match=r"sharp/002.png: 36x44 pixels, expected 36x40: the spikes' 18x20 times 2"
    ):
        examine_recording(recording, raw.manifest)


def test_an_unreadable_image_is_refused(raw, recording):
    recording.blurry_paths[1].write_bytes(b"no image")
    with pytest.raises(FormatError, match=r"blurry/001.png: not a readable"):
        examine_recording(recording, raw.manifest)


def test_a_sharp_frame_that_is_a_copy_is_refused(raw, recording):
    recording.sharp_paths[1].write_bytes(recording.blurry_paths[1].read_bytes())
    with pytest.raises(FormatError, match=r"sharp/001.png: the sharp frame has the very pixels"):
        examine_recording(recording, raw.manifest)


def test_rgb_that_is_no_multiple_of_the_spikes_is_refused(raw, recording):
    for path in (*recording.blurry_paths, *recording.sharp_paths):
        write_png(path, np.zeros((3, 36, 41), np.uint8))
    with pytest.raises(FormatError, match=r"36x41 is not a whole multiple of the 18x20 of the spikes"):
        examine_recording(recording, raw.manifest)


def test_a_recording_of_many_files_needs_few_descriptors(tmp_path, raw, manifest_of):
    """GoPro has hundreds of spike files to a sequence, and every worker examines one."""
    fmt = SpikeFormat(height=18, width=20, rate_hz=1000)
    frames = raw.spikes("train/a")
    for k in range(150):
        write_dat(tmp_path / f"g/train/s/{k:03d}.dat", frames[:2], fmt)
        (tmp_path / f"g/train/s/{k:03d}.png").write_bytes((raw.root / "train/a/blurry/000.png").read_bytes())
    layout = {"spikes": "{split}/{sequence}/{frame}.dat", "blurry": "{split}/{sequence}/{frame}.png"}
    manifest = manifest_of(layout=layout, exposure={"rule": "whole_file"}, splits={"train": {}})
    (recording,) = find_recordings(manifest, tmp_path / "g")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 30, hard))
    try:
        found, _ = examine_recording(recording, manifest)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert len(found.alignment.frames) == 150
    assert found.alignment.exposure[-1].tolist() == [298, 300]


def film(folder, flip="vertical", num_frames=200):
    """A moving scene at 40x64 as spikes, laid down as `flip` says, and its blurry frames of 50 spike frames."""
    rng = np.random.default_rng(0)
    y, x, t = np.mgrid[:40, :64, :num_frames]
    light = 0.25 + 0.12 * np.sin(y / 6 + t / 90) + 0.12 * np.cos((x + t / 20) / 7)
    charge = np.cumsum(light, axis=2) + rng.uniform(0, 1, (40, 64, 1))
    spikes = np.diff(np.floor(charge), axis=2, prepend=0).clip(0, 1).astype(np.uint8).transpose(2, 0, 1)
    write_dat(folder / "train/s/spikes.dat", spikes, SpikeFormat(height=40, width=64, rate_hz=1, flip=flip))
    for k in range(num_frames // 50):
        grey = np.round(400 * light[:, :, 50 * k : 50 * k + 50].mean(axis=2)).astype(np.uint8)
        write_png(folder / f"train/s/blurry/{k:03d}.png", np.broadcast_to(grey, (3, 40, 64)))
    return spikes


def filmed(folder, manifest_of, **changes):
    layout = {"spikes": "{split}/{sequence}/spikes.dat", "blurry": "{split}/{sequence}/blurry/{frame}.png"}
    spikes = {"height": 40, "width": 64, "rate_hz": 1000}
    exposure = {"rule": "every", "window": 50}
    values = {"layout": layout, "spikes": spikes, "exposure": exposure, "splits": {"train": {}}}
    manifest = manifest_of(**(values | changes))
    (recording,) = find_recordings(manifest, folder)
    return recording, manifest


def test_spikes_that_are_upside_down_are_refused_with_the_word_that_mends_it(tmp_path, manifest_of):
    film(tmp_path, flip="none")
    with pytest.raises(FormatError, match=r"the spikes are upside down: .* 0\.9") as caught:
        examine_recording(*filmed(tmp_path, manifest_of))
    assert "spikes.flip=none" in caught.value.fix
    declared = {"height": 40, "width": 64, "rate_hz": 1000, "flip": "none"}
    found, _ = examine_recording(*filmed(tmp_path, manifest_of, spikes=declared))
    assert found.checks["upright"] is True


@pytest.mark.parametrize("flip", ["vertical", "none"])
def test_geometry_and_flip_are_found_unaided(tmp_path, manifest_of, flip):
    film(tmp_path, flip=flip)
    auto = {"geometry": "auto", "rate_hz": 1000}
    found, problems = examine_recording(*filmed(tmp_path, manifest_of, spikes=auto))
    assert found.files.format == SpikeFormat(height=40, width=64, rate_hz=1000, flip=flip)
    assert problems == () and found.checks["in_period"] is True and found.checks["smoothness"] > 0.95


def test_a_flip_that_nothing_shows_is_the_usual_one_and_said_to_be(tmp_path, manifest_of, caplog):
    film(tmp_path)
    for path in (tmp_path / "train/s/blurry").iterdir():
        write_png(path, np.full((3, 40, 64), 9, np.uint8))
    auto = {"geometry": "auto", "rate_hz": 1000}
    found, _ = examine_recording(*filmed(tmp_path, manifest_of, spikes=auto))
    assert found.files.format.flip == "vertical" and found.checks["upright"] is False
    assert "flip 'vertical' is only the usual one: the pictures do not tell" in caplog.text


def test_frames_after_a_lost_spike_frame_are_set_aside(tmp_path, manifest_of, caplog):
    spikes = film(tmp_path)
    stream = tmp_path / "train/s/spikes.dat"
    write_dat(stream, np.delete(spikes, 110, axis=0), SpikeFormat(height=40, width=64, rate_hz=1))
    recording, manifest = filmed(tmp_path, manifest_of)
    found, problems = examine_recording(recording, manifest)
    assert found.alignment.frames == ("000", "001")
    assert problems[0].path.endswith("003.png") and "ends after the recording of 199" in problems[0].reason
    assert problems[1].path == str(stream)
    assert problems[1].reason == (
        "before spike frame 110 at least one is missing; frames 002 to 002 are set aside"
    )
    found, problems = examine_recording(*filmed(tmp_path, manifest_of, continuity="report"))
    assert found.alignment.frames == ("000", "001", "002") and len(problems) == 1
    assert "before spike frame 110" in caplog.text


def test_a_recording_of_another_geometry_can_be_set_aside_whole(tmp_path, manifest_of):
    film(tmp_path)
    recording, manifest = filmed(tmp_path, manifest_of, spikes={"height": 80, "width": 32, "rate_hz": 1})
    with pytest.raises(FormatError, match="40x64"):
        examine_recording(recording, manifest)
    found, (problem,) = examine_recording(recording, manifest, quarantine=True)
    assert found is None and problem.path == "train/s"
    assert problem.reason.startswith("the whole recording: ") and "40x64" in problem.reason


def test_one_scale_for_all(raw):
    examined = [examine_recording(r, raw.manifest)[0] for r in find_recordings(raw.manifest, raw.root)]
    scales = {one.key: one.scale for one in examined}
    assert common_scale(scales) == 2
    with pytest.raises(FormatError, match=r"train/a has RGB frames 3 times .*, test/c 2 times"):
        common_scale(scales | {"train/a": 3})
