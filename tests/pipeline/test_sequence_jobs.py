import os
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.examine import examine_recording
from pipeline.recordings import find_recordings
from pipeline.sequence_jobs import sequence_jobs

OUT = Path("store")


def planned(raw, out=OUT, root=None, **changes):
    manifest = replace(raw.manifest, **changes)
    root = root or raw.root
    recording = find_recordings(manifest, root)[0]
    return sequence_jobs(root, out, examine_recording(recording, manifest)[0], manifest)


def keys(found):
    return {job.array.name: job.key for job in found.jobs}


def test_arrays_of_a_sequence(raw):
    found = planned(raw)
    shapes = {job.array.relative_to(OUT).as_posix(): job.layout.shape for job in found.jobs}
    assert shapes == {
        "train/a/spikes": (70, 18, 3),
        "train/a/blurry": (3, 3, 36, 40),
        "train/a/sharp": (3, 3, 36, 40),
        "train/a/exposure": (3, 2),
        "train/a/exposure_ns": (3, 2),
        "train/a/sharp_index": (3,),
    }
    assert [f"{found.key}/{name}" for name in found.arrays] == list(shapes)
    attributes = found.attributes()
    assert attributes["frames"] == ["000", "001", "002"] and attributes["spike_shape"] == [18, 20]
    assert attributes["positions"] == [0, 1, 2]
    assert (attributes["timing"]["frames"], attributes["timing"]["dialect"]) == (3, "csv")
    assert attributes["sources"][0][:2] == ("train/a/spikes.dat", 70 * 45)


def test_sequences_without_sharp_frames_have_no_such_array(raw):
    for path in (raw.root / "train/a/sharp").iterdir():
        path.unlink()
    assert "sharp" not in planned(raw).arrays


def test_grey_frames_depend_on_their_threshold(raw):
    layout = replace(raw.manifest.layout, blurry=None)
    one, other = (planned(raw, layout=layout, blurry_from_spikes=value) for value in (1.0, 2.0))
    assert "threshold 2.0" in {job.array.name: job for job in other.jobs}["blurry"].attributes["made_from"]
    differing = {name for name in keys(one) if keys(one)[name] != keys(other)[name]}
    assert differing == {"blurry"}


def test_keys_know_where_nothing_is_but_what_it_is(raw, tmp_path):
    (tmp_path / "elsewhere").symlink_to(raw.root)
    assert keys(planned(raw)) == keys(planned(raw, out=Path("other"), root=tmp_path / "elsewhere"))


@pytest.mark.parametrize("name", ["spikes.dat", "blurry/001.png", "sharp/002.png"])
def test_keys_change_with_any_file(raw, name):
    before = keys(planned(raw))
    os.utime(raw.root / "train/a" / name, ns=(5, 5))
    after = keys(planned(raw))
    assert {n for n in before if before[n] != after[n]} == {"spikes", "blurry", "sharp", "exposure"}


def test_keys_of_tables_change_with_their_values(raw):
    before = keys(planned(raw))
    log = raw.root / "train/a/exposures.csv"
    log.write_text(log.read_text().replace("64000000", "65000000"))
    after = keys(planned(raw))
    assert {n for n in before if before[n] != after[n]} == {"exposure", "exposure_ns"}
