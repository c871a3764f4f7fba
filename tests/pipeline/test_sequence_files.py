import logging

import numpy as np
import pytest

from pipeline.config import build
from pipeline.errors import FormatError
from pipeline.images import write_png
from pipeline.manifest import Manifest
from pipeline.recordings import find_recordings
from pipeline.video import VideoFrame

PLAIN = {
    "name": "test",
    "layout": {"spikes": "{split}/{sequence}/s.dat", "blurry": "{split}/{sequence}/blurry/{frame}.*"},
    "spikes": {"height": 4, "width": 8, "rate_hz": 1000},
    "exposure": {"rule": "every", "window": 5},
    "splits": {"train": {}, "test": {}},
}


def manifest(*, layout=None, **changes) -> Manifest:
    return build(Manifest, PLAIN | {"layout": PLAIN["layout"] | (layout or {})} | changes, "test")


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")


def test_any_ending_of_an_image_in_any_case_and_nothing_else(tmp_path):
    names = ["0.png", "1.JPG", "2.jpeg", "3.Bmp", "4.tif", "5.TIFF"]
    touch(tmp_path, "test/s/s.dat", *(f"test/s/blurry/{name}" for name in names))
    touch(tmp_path, "test/s/blurry/notes.txt", "test/s/blurry/0.md5", "test/s/blurry/Thumbs.db")
    (found,) = find_recordings(manifest(), tmp_path)
    assert found.frames == ("0", "1", "2", "3", "4", "5")
    assert [path.name for path in found.blurry_paths] == names


def test_two_images_of_one_frame_are_refused(tmp_path):
    touch(tmp_path, "test/s/s.dat", "test/s/blurry/0.png", "test/s/blurry/0.PNG")
    with pytest.raises(FormatError, match=r"fits 2 files, 0\.PNG and 0\.png"):
        find_recordings(manifest(), tmp_path)


@pytest.mark.parametrize("name", ["blurry/1.PNG", "sharp/1.PNG", "S.DAT"])
def test_an_ending_in_the_wrong_case_is_never_passed_over(tmp_path, name):
    layout = {f"{kind}": f"{{split}}/{{sequence}}/{kind}/{{frame}}.png" for kind in ("blurry", "sharp")}
    touch(tmp_path, "test/s/s.dat", *(f"test/s/{kind}/{k}.png" for kind in ("blurry", "sharp") for k in "01"))
    old = tmp_path / "test/s" / name.replace("PNG", "png").replace("S.DAT", "s.dat")
    old.rename(tmp_path / "test/s" / name)
    with pytest.raises(
        FormatError, match=r"1\.PNG: its ending is not \.png|1\.png: no such file|s\.dat: no such file"
    ):
        find_recordings(manifest(layout=layout), tmp_path)


@pytest.mark.parametrize("name", ["a*", "a?", "[ab]", "a\nb", "a\x1b[2J", "a\udc80"])
def test_names_that_are_no_names_of_frames_are_refused(tmp_path, name):
    touch(tmp_path, "test/s/s.dat", "test/s/blurry/ab.png", f"test/s/blurry/{name}.png")
    with pytest.raises(FormatError, match="cannot be the name of a frame"):
        find_recordings(manifest(), tmp_path)


def test_names_with_spaces_and_of_other_languages_are_fine(tmp_path):
    touch(tmp_path, "test/s/s.dat", "test/s/blurry/frame 1.png", "test/s/blurry/帧2.png")
    (found,) = find_recordings(manifest(), tmp_path)
    assert set(found.frames) == {"frame 1", "帧2"}


def test_a_sequence_with_a_line_break_is_refused_not_passed_over(tmp_path):
    touch(tmp_path, "test/a\nb/s.dat", "test/a\nb/blurry/0.png")
    with pytest.raises(FormatError, match="cannot be the name of a group"):
        find_recordings(manifest(), tmp_path)


PER_FRAME = {"spikes": "{split}/{sequence}/{frame}.dat", "sharp": "{split}/{sequence}/sharp/{frame}.png"}


def test_frames_without_spikes_are_left_out_by_name_where_the_manifest_says_so(tmp_path, caplog):
    touch(tmp_path, *(f"test/s/{kind}/{k}.png" for kind in ("blurry", "sharp") for k in "1234"))
    touch(tmp_path, "test/s/2.dat", "test/s/4.dat")
    with pytest.raises(FormatError, match=r"1\.dat: no such file"):
        find_recordings(manifest(layout=PER_FRAME, exposure={"rule": "whole_file"}), tmp_path)
    lenient = manifest(layout=PER_FRAME, exposure={"rule": "whole_file"}, missing_spikes="leave_out")
    with caplog.at_level(logging.WARNING):
        (found,) = find_recordings(lenient, tmp_path)
    assert (found.frames, found.listed, found.left_out) == (("2", "4"), ("1", "2", "3", "4"), ("1", "3"))
    assert "2 frames without a spike file are left out" in caplog.text
    assert "test/s/1, test/s/3" in caplog.text
    (tmp_path / "test/s/sharp/2.png").unlink()  # only spikes may be missing
    with pytest.raises(FormatError, match=r"sharp/2\.png: no such file"):
        find_recordings(lenient, tmp_path)


def test_nothing_left_is_an_error(tmp_path):
    touch(tmp_path, "test/s/blurry/1.png", "test/s/sharp/1.png")
    lenient = manifest(layout=PER_FRAME, exposure={"rule": "whole_file"}, missing_spikes="leave_out")
    with pytest.raises(FormatError, match="test/s: no frames"):
        find_recordings(lenient, tmp_path)


def test_frames_that_training_cannot_use_are_told(tmp_path, caplog):
    touch(
        tmp_path, *(f"{split}/s/{name}" for split in ("train", "test") for name in ("s.dat", "blurry/0.png"))
    )
    with caplog.at_level(logging.WARNING):
        find_recordings(manifest(), tmp_path)
    assert caplog.text.count("without a sharp one") == 1
    assert "split train has frames without a sharp one, in 1 sequences" in caplog.text
    assert "s (1 of 1)" in caplog.text


VIDEO = {"blurry": "{split}/{sequence}/rgb.mkv"}


def pictures(num_frames):
    return np.random.default_rng(0).integers(0, 256, (num_frames, 3, 16, 32), np.uint8)


def test_a_video_names_its_frames_by_their_numbers(tmp_path, write_video):
    write_video(tmp_path / "test/s/rgb.mkv", pictures(3))
    touch(tmp_path, "test/s/s.dat")
    (found,) = find_recordings(manifest(layout=VIDEO), tmp_path)
    assert found.frames == found.listed == ("000000", "000001", "000002")
    assert [str(place) for place in found.blurry_paths] == [
        f"{tmp_path}/test/s/rgb.mkv frame {k}" for k in range(3)
    ]


def test_sharp_images_and_videos_go_with_a_video(tmp_path, write_video):
    write_video(tmp_path / "test/s/rgb.mkv", pictures(2))
    touch(tmp_path, "test/s/s.dat")
    for k in range(2):
        write_png(tmp_path / f"test/s/sharp/{k:06d}.png", pictures(2)[k])
    images = VIDEO | {"sharp": "{split}/{sequence}/sharp/{frame}.png"}
    (found,) = find_recordings(manifest(layout=images), tmp_path)
    assert [path.name for path in found.sharp_paths] == ["000000.png", "000001.png"]
    both = VIDEO | {"sharp": "{split}/{sequence}/sharp.mkv"}
    with pytest.raises(FormatError, match=r"sharp\.mkv: no such file: the sharp video of test/s"):
        find_recordings(manifest(layout=both), tmp_path)
    (found,) = find_recordings(manifest(layout=both, missing_sharp="test_only"), tmp_path)
    assert found.sharp_paths == (None, None)
    write_video(tmp_path / "test/s/sharp.mkv", pictures(2))
    (found,) = find_recordings(manifest(layout=both), tmp_path)
    assert isinstance(found.sharp_paths[1], VideoFrame) and found.sharp_paths[1].index == 1
    write_video(tmp_path / "test/s/sharp.mkv", pictures(3))
    with pytest.raises(FormatError, match=r"rgb\.mkv has 2 frames, .*sharp\.mkv 3"):
        find_recordings(manifest(layout=both), tmp_path)


def test_images_without_a_frame_in_the_sharp_video_are_named(tmp_path, write_video):
    touch(
        tmp_path,
        "test/s/s.dat",
        "test/s/blurry/000000.png",
        "test/s/blurry/000002.png",
        "test/s/blurry/1.png",
    )
    write_video(tmp_path / "test/s/sharp.mkv", pictures(2))
    with pytest.raises(FormatError) as caught:
        find_recordings(manifest(layout={"sharp": "{split}/{sequence}/sharp.mkv"}), tmp_path)
    assert caught.value.problem.count("sharp.mkv: no such frame: the sharp frame of frame") == 2


def test_a_missing_video_is_named(tmp_path):
    touch(tmp_path, "test/s/s.dat")
    with pytest.raises(FormatError, match=r"rgb\.mkv: no such file: the blurry video of test/s"):
        find_recordings(manifest(layout=VIDEO), tmp_path)


def test_a_video_outside_the_root_is_not_opened(tmp_path, write_video):
    write_video(tmp_path / "elsewhere/rgb.mkv", pictures(2))
    touch(tmp_path, "root/test/s/s.dat")
    (tmp_path / "root/test/s/rgb.mkv").symlink_to(tmp_path / "elsewhere/rgb.mkv")
    with pytest.raises(Exception, match="leads out of"):
        find_recordings(manifest(layout=VIDEO), tmp_path / "root")
