import logging
from pathlib import Path

import numpy as np
import pytest

from pipeline.config import build
from pipeline.dat import write_dat
from pipeline.errors import FormatError, UsageError
from pipeline.images import write_png
from pipeline.manifest import Manifest, read_manifest
from pipeline.recordings import find_recordings, natural_order, scale_of
from pipeline.spike_format import SpikeFormat

PLAIN = {
    "name": "test",
    "layout": {
        "spikes": "{split}/{sequence}/spikes.dat",
        "blurry": "{split}/{sequence}/blurry/{frame}.png",
        "sharp": "{split}/{sequence}/sharp/{frame}.png",
    },
    "spikes": {"height": 4, "width": 8, "rate_hz": 1000},
    "exposure": {"rule": "every", "window": 5},
    "splits": {"train": {}, "test": {}},
}


def manifest(**changes) -> Manifest:
    return build(Manifest, PLAIN | changes, "test")


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")


def sequence(root: Path, name: str, frames=("0", "1")) -> None:
    touch(
        root,
        f"{name}/spikes.dat",
        *(f"{name}/{kind}/{f}.png" for f in frames for kind in ("blurry", "sharp")),
    )


def test_finds_splits_sequences_and_frames_in_numerical_order(tmp_path):
    sequence(tmp_path, "train/s10", ["2", "10", "1"])
    sequence(tmp_path, "train/s9")
    sequence(tmp_path, "test/a/b.c")
    found = find_recordings(manifest(), tmp_path)
    assert [(r.split, r.sequence, r.source_name) for r in found] == [
        ("train", "s9", "s9"),
        ("train", "s10", "s10"),
        ("test", "a__b.c", "a/b.c"),
    ]
    assert found[1].listed == found[1].frames == ("1", "2", "10")
    assert found[1].spike_paths == (tmp_path / "train/s10/spikes.dat",)
    assert found[1].blurry_paths[2] == tmp_path / "train/s10/blurry/10.png"
    assert found[1].sharp_paths[0] == tmp_path / "train/s10/sharp/1.png"
    assert found[1].log_path is None
    assert found[1].problems == ()
    assert found[1].format.width == 8


def test_natural_order_reads_numbers_of_any_length():
    assert sorted(["1" * 5001, "9" * 5000, "0" * 6000 + "2"], key=natural_order)[::2] == [
        "0" * 6000 + "2",
        "1" * 5001,
    ]


def test_natural_order_reads_numbers():
    names = ["10", "9", "0007_002", "0007", "0008", "a2", "a10"]
    assert sorted(names, key=natural_order) == ["0007", "0007_002", "0008", "9", "10", "a2", "a10"]


@pytest.mark.parametrize("name", ["sharp/1.png", "blurry/1.png", "spikes.dat"])
def test_a_missing_file_is_named_and_never_replaced(tmp_path, name):
    sequence(tmp_path, "train/s")
    (tmp_path / "train/s" / name).unlink()
    # A blurry frame is missing where a spike file or the log knows of it; alone it names the frame.
    if name.startswith("blurry"):
        assert find_recordings(manifest(), tmp_path)[0].frames == ("0",)
        return
    with pytest.raises(FormatError) as caught:
        find_recordings(manifest(), tmp_path)
    assert f"{tmp_path}/train/s/{name}: no such file" in caught.value.problem
    (recording,) = find_recordings(manifest(), tmp_path, quarantine=True)
    assert recording.frames == (("0",) if name.startswith("sharp") else ())
    assert recording.listed == ("0", "1")
    assert [problem.path for problem in recording.problems] == [str(tmp_path / "train/s" / name)]


def test_frames_without_a_sharp_one_may_be_kept_for_testing(tmp_path):
    sequence(tmp_path, "train/s")
    (tmp_path / "train/s/sharp/1.png").unlink()
    (recording,) = find_recordings(manifest(missing_sharp="test_only"), tmp_path)
    assert recording.frames == ("0", "1")
    assert recording.sharp_paths == (tmp_path / "train/s/sharp/0.png", None)
    assert recording.problems == ()


def test_spike_files_by_frame_go_with_their_images(tmp_path):
    per_frame = manifest(
        layout=PLAIN["layout"] | {"spikes": "spk/{split}/{sequence}/{frame}.dat"},
        exposure={"rule": "whole_file"},
    )
    sequence(tmp_path, "train/s", ["8", "9", "10"])
    touch(tmp_path, "spk/train/s/8.dat", "spk/train/s/9.dat", "spk/train/s/10.dat")
    (recording,) = find_recordings(per_frame, tmp_path)
    assert [path.name for path in recording.spike_paths] == ["8.dat", "9.dat", "10.dat"]
    touch(tmp_path, "spk/train/s/11.dat")
    (tmp_path / "spk/train/s/9.dat").unlink()
    with pytest.raises(FormatError) as caught:
        find_recordings(per_frame, tmp_path)
    assert "spk/train/s/9.dat: no such file: the spike file of frame 9 of train/s" in caught.value.problem
    assert "blurry/11.png: no such file" in caught.value.problem
    (recording,) = find_recordings(per_frame, tmp_path, quarantine=True)
    assert recording.listed == ("8", "9", "10", "11") and recording.frames == ("8", "10")
    assert [path.name for path in recording.spike_paths] == ["8.dat", "10.dat"]


def test_listed_sequences_make_the_splits(tmp_path, caplog):
    for name in ("a", "b", "c", "d1", "d2"):
        sequence(tmp_path, f"train/{name}")
    splits = {"train": {"sequences": ["a", "d*"]}, "val": {"folder": "train", "sequences": ["b", "gone"]}}
    with caplog.at_level(logging.WARNING):
        found = find_recordings(manifest(splits=splits), tmp_path)
    assert [(r.split, r.sequence) for r in found] == [
        ("train", "a"),
        ("train", "d1"),
        ("train", "d2"),
        ("val", "b"),
    ]
    assert found[-1].blurry_paths[0] == tmp_path / "train/b/blurry/0.png"
    assert "split val lacks 1 sequences: gone" in caplog.text
    assert "1 sequences are in no split: c" in caplog.text


def test_a_sequence_in_two_splits_is_refused(tmp_path):
    sequence(tmp_path, "train/a")
    splits = {"train": {}, "val": {"folder": "train", "sequences": ["a"]}}
    with pytest.raises(FormatError, match="a is in the splits train and val"):
        find_recordings(manifest(splits=splits), tmp_path)


def test_names_that_become_one_in_the_store_are_refused(tmp_path):
    sequence(tmp_path, "train/a/b")
    sequence(tmp_path, "train/a__b")
    with pytest.raises(FormatError, match="both become a__b"):
        find_recordings(manifest(), tmp_path)


@pytest.mark.parametrize("name", ["my clip", "_x", "é"])
def test_names_that_no_store_should_have_are_refused(tmp_path, name):
    sequence(tmp_path, f"train/{name}")
    with pytest.raises(FormatError, match="cannot be the name of a group"):
        find_recordings(manifest(), tmp_path)


def test_an_empty_root_says_what_was_looked_for(tmp_path):
    with pytest.raises(FormatError, match=r"nothing fits train\|test/\{sequence\}/blurry/\{frame\}.png"):
        find_recordings(manifest(), tmp_path)
    with pytest.raises(FormatError, match="no such folder"):
        find_recordings(manifest(), tmp_path / "absent")


def test_files_that_lead_out_of_the_root_are_refused(tmp_path):
    sequence(tmp_path / "root", "train/s")
    touch(tmp_path, "secret.png")
    (tmp_path / "root/train/s/sharp/0.png").unlink()
    (tmp_path / "root/train/s/sharp/0.png").symlink_to(tmp_path / "secret.png")
    with pytest.raises(UsageError, match="leads out of"):
        find_recordings(manifest(), tmp_path / "root")


def test_a_format_file_goes_before_the_manifest(tmp_path):
    sequence(tmp_path, "train/a")
    sequence(tmp_path, "train/b")
    (tmp_path / "train/a/format.yaml").write_text("{height: 6, width: 16, rate_hz: 4000/3, flip: none}")
    layout = PLAIN["layout"] | {"format": "{split}/{sequence}/format.yaml"}
    a, b = find_recordings(manifest(layout=layout), tmp_path)
    assert (a.format.height, a.format.flip, b.format.height) == (6, "none", 4)
    without = {key: value for key, value in PLAIN.items() if key != "spikes"}
    with pytest.raises(FormatError, match=r"train/b/format.yaml: no such file"):
        find_recordings(build(Manifest, without | {"layout": layout}, "test"), tmp_path)


def test_a_recording_may_be_the_root_itself(tmp_path):
    touch(tmp_path, "s.dat", "rgb/0.png", "rgb/1.png")
    layout = {"spikes": "s.dat", "blurry": "rgb/{frame}.png"}
    (recording,) = find_recordings(manifest(layout=layout, splits={"test": {}}), tmp_path)
    assert (recording.split, recording.sequence, recording.frames) == ("test", "test", ("0", "1"))


def test_spikes_alone_are_cut_into_numbered_windows(tmp_path):
    fmt = SpikeFormat(height=4, width=8, rate_hz=1000)
    write_dat(tmp_path / "train/s.dat", np.zeros((23, 4, 8), np.uint8), fmt)
    alone = {"layout": {"spikes": "{split}/{sequence}.dat"}, "blurry_from_spikes": 2.0}
    (recording,) = find_recordings(manifest(**alone), tmp_path)
    assert recording.frames == ("000000", "000001", "000002", "000003")  # 23 // 5
    assert recording.blurry_paths == (None,) * 4
    (recording,) = find_recordings(
        manifest(**alone, exposure={"rule": "every", "window": 5, "stride": 9}), tmp_path
    )
    assert len(recording.frames) == 3  # 0, 9, 18 to 23


def test_scale_comes_from_the_images_and_must_be_whole(tmp_path):
    sequence(tmp_path, "train/s")
    for size, scale in {(8, 16): 2, (4, 8): 1, (8, 17): None, (8, 24): None, (2, 4): None}.items():
        write_png(tmp_path / "train/s/blurry/0.png", np.zeros(size, np.uint8))
        (recording,) = find_recordings(manifest(), tmp_path)
        if scale is None:
            with pytest.raises(FormatError, match=f"{size[0]}x{size[1]} is not a whole multiple of the 4x8"):
                scale_of(recording, manifest())
        else:
            assert scale_of(recording, manifest()) == scale
    write_png(tmp_path / "train/s/blurry/0.png", np.zeros((8, 16), np.uint8))
    with pytest.raises(FormatError, match="is not 4 times"):
        scale_of(recording, manifest(scale=4))


def test_finds_the_gopro_layout(tmp_path):
    for split, name in (("train", "GOPR0372_07_00"), ("test", "GOPR0384_11_00")):
        for frame in ("000047", "000048"):
            base = f"GOPRO_Large/{split}/{name}"
            touch(
                tmp_path,
                f"{base}/blur/{frame}.png",
                f"{base}/blur_gamma/{frame}.png",
                f"{base}/sharp/{frame}.png",
            )
            touch(tmp_path, f"GOPRO_Large_spike_seq/{split}/{name}/spike/{frame}.dat")
    touch(tmp_path, "GOPRO_Large/train/.DS_Store", "GOPRO_Large_spike_seq/config.yaml")
    found = find_recordings(read_manifest("gopro_spike"), tmp_path)
    assert [(r.split, r.sequence, r.frames) for r in found] == [
        ("train", "GOPR0372_07_00", ("000047", "000048")),
        ("test", "GOPR0384_11_00", ("000047", "000048")),
    ]
    assert found[0].spike_paths[1] == tmp_path / "GOPRO_Large_spike_seq/train/GOPR0372_07_00/spike/000048.dat"
    assert found[0].blurry_paths[1] == tmp_path / "GOPRO_Large/train/GOPR0372_07_00/blur/000048.png"


def test_finds_the_x4k_layout_whose_sharp_frames_are_more(tmp_path):
    clip = "002/occ008.320_f2881"
    touch(tmp_path, f"val_spike_2xds/{clip}/spike.dat")
    touch(tmp_path, *(f"val_blurry_33/{clip}/{frame}.png" for frame in ("0007_002", "0004")))
    touch(
        tmp_path, *(f"val_fullRGB/{clip}/{frame}.png" for frame in ("0004", "0004_000", "0007_002", "0008"))
    )
    (recording,) = find_recordings(read_manifest("x4k1000fps"), tmp_path)
    assert (recording.split, recording.sequence) == ("val", "002__occ008.320_f2881")
    assert recording.frames == ("0004", "0007_002")
    assert (recording.format.height, recording.format.width) == (256, 256)


def test_finds_the_unified_layout(tmp_path):
    base = "train/002/occ"
    touch(tmp_path, f"{base}/blur/31.png", f"{base}/sharp/31.png", f"{base}/spike/spike.dat", "align_x4k.txt")
    (recording,) = find_recordings(read_manifest("unified"), tmp_path)
    assert recording.log_path == tmp_path / "align_x4k.txt"
    assert recording.source_name == "002/occ"


def test_facts_about_the_camera_are_read_where_there_are_any(tmp_path):
    layout = PLAIN["layout"] | {"camera": "{split}/{sequence}/camera.yaml"}
    sequence(tmp_path, "train/a")
    sequence(tmp_path, "train/b")
    (tmp_path / "train/b/camera.yaml").write_text("camera: {threshold: 4.0, reset: subtract}")
    found = find_recordings(manifest(layout=layout), tmp_path)
    assert [one.camera for one in found] == [None, {"camera": {"threshold": 4.0, "reset": "subtract"}}]
    assert find_recordings(manifest(), tmp_path)[1].camera is None
    (tmp_path / "train/b/camera.yaml").write_text("threshold: high")
    with pytest.raises(FormatError, match=r"train/b/camera\.yaml: threshold 'high'"):
        find_recordings(manifest(layout=layout), tmp_path)
