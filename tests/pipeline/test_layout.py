import pytest

from pipeline.layout import Layout, expand, fixed_folder, is_video, matcher

GOPRO = "GOPRO_Large/{split}/{sequence}/blur/{frame}.png"


def test_expands_some_or_all_placeholders():
    assert expand(GOPRO, split="train") == "GOPRO_Large/train/{sequence}/blur/{frame}.png"
    assert expand(GOPRO, split="train", sequence="a/b", frame="1") == "GOPRO_Large/train/a/b/blur/1.png"


def test_knows_the_folder_to_look_in():
    assert fixed_folder(expand(GOPRO, split="train")) == "GOPRO_Large/train"
    assert fixed_folder("spikes.dat") == ""
    assert fixed_folder("raw/{sequence}_x/a.dat") == "raw"


def test_a_sequence_may_span_folders_and_a_frame_may_not():
    match = matcher(expand(GOPRO, split="train")).fullmatch(
        "GOPRO_Large/train/002/occ008.320_f2881/blur/0007.png"
    )
    assert match is not None
    assert match.groupdict() == {"sequence": "002/occ008.320_f2881", "frame": "0007"}
    assert matcher("{split}/{frame}.png").fullmatch("train/a/b.png") is None


def test_special_characters_stand_for_themselves_and_a_star_for_any():
    assert matcher("a+b/{frame}.png").fullmatch("a+b/1xpng") is None
    assert matcher("{sequence}/spike/*.dat").fullmatch("s/spike/any name.dat")["sequence"] == "s"
    assert matcher("{sequence}/spike/*.dat").fullmatch("s/spike/a/b.dat") is None


def test_a_placeholder_used_twice_means_the_same():
    pattern = matcher("{sequence}/{frame}/{frame}.dat")
    assert pattern.fullmatch("s/1/1.dat")["frame"] == "1"
    assert pattern.fullmatch("s/1/2.dat") is None


def test_videos_are_known_by_their_endings():
    assert is_video("{sequence}/rgb.MP4") and is_video("{sequence}/*.avi")
    assert not is_video("{sequence}/{frame}.png") and not is_video("{sequence}/mp4")
    assert Layout(spikes="{sequence}/s.dat", blurry="{sequence}/rgb.mp4", sharp="{sequence}/sharp.mov").sharp


def test_a_name_with_a_line_break_is_found():
    assert matcher("{sequence}/{frame}.png").fullmatch("a\nb/c\nd.png").groupdict() == {
        "sequence": "a\nb",
        "frame": "c\nd",
    }


@pytest.mark.parametrize(
    "wrong",
    [
        {"spikes": "../{sequence}.dat"},
        {"spikes": "/data/{sequence}.dat"},
        {"spikes": "a\\b.dat"},
        {"spikes": ""},
        {"spikes": "{sequence}/{name}.dat"},
        {"spikes": "{sequence!r}.dat"},
        {"spikes": "{sequence:9}.dat"},
        {"spikes": "{{x}}.dat"},
        {"spikes": "{sequence.dat"},
        {"spikes": "*/a.dat"},
        {"spikes": "{sequence}/a\0.dat"},
        {"spikes": "a/../../{sequence}.dat"},
        {"sharp": "/{sequence}/{frame}.png"},
        {"log": "/etc/passwd"},
        {"log": "../log.csv"},
        {"format": "a/../../format.yaml"},
        {"blurry": "{sequence}/../../rgb.mp4"},
        {"blurry": "{sequence}/{frame}.mp4"},
        {"blurry": "rgb.mp4"},
        {"spikes": "{sequence}/*a*b*.dat"},
        {"spikes": "a\0b.dat"},
        {"spikes": "\ud800.dat"},
        {"blurry": "{sequence}/a.png"},
        {"blurry": "{frame}.png"},
        {"log": "{sequence}/{frame}.csv"},
        {"format": "{frame}.yaml"},
        {"camera": "{sequence}/{frame}.yaml"},
        {"camera": "../camera.yaml"},
    ],
)
def test_refuses_patterns_that_cannot_work(wrong):
    with pytest.raises(ValueError):
        Layout(**({"spikes": "{sequence}/a.dat"} | wrong))
