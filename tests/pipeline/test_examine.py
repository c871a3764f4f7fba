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


def test_one_scale_for_all(raw):
    examined = [examine_recording(r, raw.manifest)[0] for r in find_recordings(raw.manifest, raw.root)]
    assert common_scale(examined) == 2
    with pytest.raises(FormatError, match=r"train/a has RGB frames 3 times .*, test/c 2 times"):
        common_scale([replace(examined[0], scale=3), *examined[1:]])
