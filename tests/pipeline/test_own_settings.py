"""What a user tells of a recording, put together with what a manifest says."""

from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.errors import UsageError
from pipeline.manifest import read_manifest
from pipeline.own_settings import OwnFiles, declared_format, fill_windows, is_setting, told_exposure
from pipeline.spike_format import AutoFormat, SpikeFormat

OWN = OwnFiles(video=Path("mine.mp4"), spikes=Path("mine.dat"), log=Path("mine.csv"))
GOPRO = read_manifest("gopro_spike")


def test_settings_are_told_apart():
    told = ["height=4", "spikes.num_frames=3", "window=4", "clock.stamp=end", "scale=2", "rate_hz=1"]
    assert all(map(is_setting, told))
    assert not any(map(is_setting, ["tile=64", "num_frames=3", "parallel.device=cpu", "heigth=3"]))


def test_without_settings_everything_is_to_be_found():
    declared, flip_told, is_timed = declared_format(OWN, None, None)
    assert declared == AutoFormat(geometry="auto", rate_hz=1) and not flip_told and not is_timed


def test_the_command_goes_before_the_manifest():
    declared, flip_told, is_timed = declared_format(
        replace(OWN, settings=("height=180", "width=320")), GOPRO, None
    )
    assert isinstance(declared, SpikeFormat) and flip_told and is_timed
    assert (declared.height, declared.width, declared.rate_hz) == (180, 320, 1920)
    told = replace(OWN, log=None, settings=("margin=2", "window=88", "raw_frames=null"))
    exposure, from_manifest = told_exposure(told, GOPRO, one_each=True)
    assert from_manifest and (exposure["rule"], exposure["margin"], exposure["window"]) == (
        "whole_file",
        2,
        88,
    )


def test_a_log_goes_before_the_rule_of_the_manifest():
    exposure, from_manifest = told_exposure(OWN, GOPRO, one_each=False)
    assert exposure == {"rule": "log"} and not from_manifest


def test_arrays_are_usually_upright():
    told = replace(OWN, spikes=Path("mine.npz"), settings=("height=8", "width=8"))
    assert declared_format(told, None, None)[0].flip == "none"
    assert declared_format(replace(told, spikes=OWN.spikes), None, None)[0].flip == "vertical"


def test_windows_are_filled_in_only_where_they_are_whole():
    exposure = {"rule": "every", "window": 3}
    assert len(fill_windows(exposure, OWN, 40, 10)) == 1 and exposure["stride"] == 4
    with pytest.raises(UsageError, match="41 spike frames for the 10 frames"):
        fill_windows({"rule": "every"}, OWN, 41, 10)
    with pytest.raises(UsageError, match="9 spike frames for the 10 frames"):
        fill_windows({"rule": "every"}, OWN, 9, 10)


def test_two_answers_or_none_are_refused():
    with pytest.raises(UsageError, match="which of them"):
        told_exposure(replace(OWN, settings=("rule=every", "window=4")), None, one_each=False)
    with pytest.raises(UsageError, match="told by a log") as caught:
        told_exposure(
            replace(OWN, log=None, manifest="simulated"), read_manifest("simulated"), one_each=False
        )
    assert caught.value.fix == "add --log FILE"
