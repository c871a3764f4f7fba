"""What is made of the files that a user names, and what is said where they do not tell enough."""

import shutil
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from pipeline.dat import open_spikes, write_array, write_dat
from pipeline.errors import AlignmentError, ConfigError, FormatError, UsageError
from pipeline.own_files import set_up
from pipeline.own_settings import OwnFiles
from pipeline.spike_format import SpikeFormat

FORMAT = SpikeFormat(height=64, width=64, rate_hz=Fraction(4000))


@pytest.fixture
def own(moving_raw: Path, tmp_path: Path) -> OwnFiles:
    """A copy of one recording: five images, a stream of 256 spike frames, a log in ns."""
    folder = Path(shutil.copytree(moving_raw / "test" / "test_0000", tmp_path / "mine"))
    (folder / "format.yaml").unlink()
    return OwnFiles(video=folder / "blurry", spikes=folder / "spikes.dat", log=folder / "exposures.csv")


def spans_of(setup):
    """Exposures of the rule `every`, as settings."""
    exposure = setup.manifest.exposure
    return exposure.rule, exposure.window, exposure.stride


def rewritten(own: OwnFiles, frames: int) -> OwnFiles:
    """The same without a log, and with so many spike frames."""
    spikes = open_spikes(own.spikes, FORMAT).read(0, frames)
    write_dat(own.spikes, spikes, FORMAT)
    return replace(own, log=None)


def test_everything_is_found_but_the_rate(own):
    setup = set_up(replace(own, settings=("rate_hz=4000",)))
    recording = setup.recording
    assert recording.format == FORMAT and recording.finds_flip and setup.is_timed
    assert recording.frames == tuple(f"{k:06d}" for k in range(5))
    assert recording.source_name == "blurry" and not setup.assumed
    assert setup.manifest.exposure.rule == "log"


def test_a_log_of_times_needs_the_rate(own):
    with pytest.raises(UsageError, match="how many spike frames there are to a second") as caught:
        set_up(own)
    assert "rate_hz=" in caught.value.fix


def test_a_declared_format_is_kept_and_its_flip_found_unless_told(own):
    told = ("height=64", "width=64", "rate_hz=4000")
    assert set_up(replace(own, settings=told)).recording.finds_flip
    setup = set_up(replace(own, settings=(*told, "flip=none", "bit_order=msb")))
    assert not setup.recording.finds_flip
    assert (setup.recording.format.flip, setup.recording.format.bit_order) == ("none", "msb")


def test_the_manifests_format_file_is_found_beside_the_spikes(own, moving_raw):
    shutil.copy(moving_raw / "test" / "test_0000" / "format.yaml", own.spikes.parent)
    setup = set_up(replace(own, manifest="simulated"))
    assert (
        setup.recording.format == replace(FORMAT, num_frames=256)
        and setup.is_timed
        and not setup.recording.finds_flip
    )


def test_a_whole_number_of_spike_frames_for_each_frame_is_taken_and_said(own):
    setup = set_up(rewritten(own, 240))
    assert spans_of(setup) == ("every", 48, 48)
    assert not setup.is_timed
    assert len(setup.assumed) == 2 and "stride=48" in setup.assumed[0] and "window=48" in setup.assumed[1]
    setup = set_up(replace(rewritten(own, 240), settings=("window=32",)))
    assert spans_of(setup) == ("every", 32, 48) and len(setup.assumed) == 1
    setup = set_up(replace(rewritten(own, 240), settings=("window=32", "stride=40")))
    assert spans_of(setup) == ("every", 32, 40) and not setup.assumed


def test_any_other_number_needs_a_log_or_settings(own):
    with pytest.raises(UsageError, match="239 spike frames for the 5 frames") as caught:
        set_up(rewritten(own, 239))
    assert "--log FILE" in caught.value.fix and "window=W stride=S" in caught.value.fix


def test_a_spike_file_for_each_frame_is_matched_by_name(own, tmp_path):
    folder = tmp_path / "streams"
    spikes = open_spikes(own.spikes, FORMAT).read(0, 240)
    for k in range(5):
        write_dat(folder / f"{k:06d}.dat", spikes[48 * k : 48 * k + 32], FORMAT)
    own = replace(own, log=None, spikes=folder)
    setup = set_up(own)
    assert setup.manifest.exposure.rule == "whole_file" and "rule=whole_file" in setup.assumed[0]
    assert [path.stem for path in setup.recording.spike_paths] == list(setup.recording.frames)
    (folder / "000002.dat").rename(folder / "other.dat")
    with pytest.raises(FormatError, match=r"000002: no spike file of that name"):
        set_up(own)


def test_arrays_are_recognised_as_well(own):
    spikes = open_spikes(own.spikes, FORMAT).read(0, 240)
    path = own.spikes.with_suffix(".npz")
    write_array(path, spikes, replace(FORMAT, flip="none", axes="HWT"))
    setup = set_up(replace(own, log=None, spikes=path))
    assert (setup.recording.format.axes, setup.recording.format.flip) == ("HWT", "none")


def test_frames_of_a_video_have_the_names_of_the_log(own, write_video):
    frames = np.zeros((5, 3, 64, 64), np.uint8)
    video = write_video(own.video.parent / "mine.mkv", frames)
    own = replace(own, video=video, settings=("rate_hz=4000",))
    assert set_up(own).recording.frames == tuple(f"{k:06d}" for k in range(5))
    text = own.log.read_text().splitlines()
    renamed = [text[0], *(f"{k + 1}{row[6:]}" for k, row in enumerate(text[1:]))]
    own.log.write_text("\n".join(renamed) + "\n")
    assert set_up(own).recording.frames == ("1", "2", "3", "4", "5")
    own.log.write_text(
        "\n".join([renamed[0], *(row.replace(",", "/../x,", 1) for row in renamed[1:])]) + "\n"
    )
    assert set_up(own).recording.frames[0] == "000000"
    assert set_up(own).video_hz == 25


def test_a_log_of_several_sequences_must_be_told_which(own):
    rows = [
        f"{frame},{seq},{t},{t + 8_000_000}"
        for seq in "ab"
        for frame, t in (("000000", 0), ("000001", 9_000_000))
    ]
    own.log.write_text(
        "\n".join(
            [
                "frame,start_ns,stop_ns,sequence",
                *(f"{f},{a},{b},{s}" for f, s, a, b in (row.split(",") for row in rows)),
            ]
        )
        + "\n"
    )
    own = replace(own, settings=("rate_hz=4000",))
    with pytest.raises(UsageError, match="2 sequences: a, b") as caught:
        set_up(own)
    assert caught.value.fix == "say which: --sequence a"
    assert set_up(replace(own, sequence="b")).recording.source_name == "b"


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        (("height=64", "rate_hz=4000"), ConfigError, "spikes.width: missing"),
        (("bit_order=both", "height=64", "width=64", "rate_hz=4000"), ConfigError, "bit_order"),
        (("spikes=4",), ConfigError, "a group of settings"),
        (("scale=99", "rate_hz=4000"), ConfigError, "scale 99"),
        (
            ("dialect=pairs", "clock.stamp=end", "clock.origin=first_frame", "rate_hz=4000"),
            AlignmentError,
            "header",
        ),
    ],
)
def test_settings_that_cannot_be_meant_are_named(own, settings, error, words):
    with pytest.raises(error, match=words):
        set_up(replace(own, settings=settings))


def test_files_that_are_none_are_named(own, tmp_path):
    with pytest.raises(FormatError, match="no such file"):
        set_up(replace(own, video=tmp_path / "nothing.mp4"))
    with pytest.raises(FormatError, match="neither a folder of images nor a video"):
        set_up(replace(own, video=own.spikes))
    with pytest.raises(FormatError, match="no images"):
        set_up(replace(own, video=tmp_path))
    shutil.copy(own.video / "000001.png", own.video / "000001.jpg")
    with pytest.raises(FormatError, match="both called 000001"):
        set_up(own)
