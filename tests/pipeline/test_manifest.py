from fractions import Fraction

import pytest

from pipeline.config import build, to_plain
from pipeline.errors import ConfigError
from pipeline.manifest import SHIPPED, Manifest, read_manifest
from pipeline.spike_format import AutoFormat

PLAIN = {
    "name": "test",
    "layout": {"spikes": "{split}/{sequence}/s.dat", "blurry": "{split}/{sequence}/{frame}.png"},
    "spikes": {"height": 4, "width": 8, "rate_hz": 1000},
    "exposure": {"rule": "every", "window": 5},
    "splits": {"train": {}},
}


def changed(**changes) -> dict:
    return PLAIN | {
        key: PLAIN[key] | value if isinstance(value, dict) and key in PLAIN else value
        for key, value in changes.items()
    }


@pytest.mark.parametrize("name", sorted(path.stem for path in SHIPPED.glob("*.yaml")))
def test_shipped_manifests_read_and_go_there_and_back(name):
    manifest = read_manifest(name)
    assert manifest.name == name
    assert manifest.source
    assert manifest.licence
    assert build(Manifest, to_plain(manifest), "test") == manifest
    assert read_manifest(SHIPPED / f"{name}.yaml") == manifest


def test_the_manifests_of_the_issue_are_shipped():
    assert {path.stem for path in SHIPPED.glob("*.yaml")} >= {
        "gopro_spike",
        "x4k1000fps",
        "unified",
        "simulated",
    }


def test_the_official_gopro_split_is_spelled_out():
    manifest = read_manifest("gopro_spike")
    train, test = (set(manifest.splits[split].sequences) for split in ("train", "test"))
    assert (len(train), len(test), train & test) == (22, 11, set())
    assert {name.split("_")[1] for name in train} == {"07", "11", "13"}
    assert {name.split("_")[1] for name in test} == {"11"}
    assert (manifest.spikes.height, manifest.spikes.width, manifest.spikes.rate_hz) == (
        360,
        640,
        Fraction(1920),
    )


def test_spike_files_may_differ_between_splits():
    manifest = read_manifest("x4k1000fps")
    assert (manifest.format_of("train").width, manifest.format_of("val").width) == (384, 256)


def test_an_unknown_name_gets_the_known_ones():
    with pytest.raises(ConfigError, match="gopro_spike") as caught:
        read_manifest("gopro_spikes")
    assert caught.value.fix == "did you mean gopro_spike?"
    with pytest.raises(ConfigError, match="no such file"):
        read_manifest("absent.yaml")


def test_reads_a_file_by_its_path(tmp_path):
    (tmp_path / "mine.yaml").write_text((SHIPPED / "sreds.yaml").read_text())
    assert read_manifest(tmp_path / "mine.yaml").name == "sreds"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"splitz": {}}, "did you mean 'splits'"),
        ({"layout": {"spikes": "../{sequence}.dat"}}, "without '..'"),
        ({"layout": {"blurry": None}}, "blurry_from_spikes"),
        ({"blurry_from_spikes": 2.0}, "blurry_from_spikes"),
        ({"layout": {"blurry": None}, "blurry_from_spikes": -1.0}, "above 0"),
        ({"layout": {"log": "a.csv"}}, "layout.log goes with"),
        ({"layout": {"spikes": "{split}/{sequence}/{frame}.dat"}}, "whole_file"),
        ({"exposure": {"rule": "log", "window": None}}, "layout.log goes with"),
        ({"exposure": {"window": None}}, "window goes with"),
        ({"exposure": {"margin": 2}}, "margin 2"),
        ({"exposure": {"rule": "whole_file", "margin": -1}}, "margin -1"),
        ({"exposure": {"rule": "whole_file", "window": None, "margin": 2}}, "a length to check files by"),
        (
            {"exposure": {"rule": "whole_file", "raw_frames": {"pattern": r"_(\d+)_", "spike_frames": 8}}},
            "window and raw_frames both",
        ),
        ({"missing_spikes": "leave_out"}, "goes with spike files by {frame}"),
        ({"layout": {"blurry": "{split}/{sequence}/rgb.png"}}, "must name {frame}, or be one video"),
        ({"layout": {"blurry": "{split}/{sequence}/{frame}.mp4"}}, "must name {frame}, or be one video"),
        ({"exposure": {"window": 0}}, "at least 1"),
        ({"exposure": {"stride": 0}}, "at least 1"),
        ({"exposure": {"log_rate_hz": 0}}, "above 0"),
        ({"exposure": {"rule": "sometimes"}}, "whole_file"),
        ({"exposure": {"numbering": {"pattern": "("}}}, "not a regular expression"),
        ({"exposure": {"numbering": {"pattern": "no group"}}}, "0 groups"),
        ({"exposure": {"numbering": {"pattern": "(.)(.)(.)"}}}, "3 groups"),
        ({"exposure": {"numbering": {"per_number": 0}}}, "per_number 0"),
        (
            {"exposure": {"rule": "centred", "numbering": {"source": "order"}}},
            "order goes with the rule every",
        ),
        ({"exposure": {"raw_frames": {"pattern": r"_(\d+)_", "spike_frames": 0}}}, "spike_frames 0"),
        ({"sharp": {"rule": "raw_frames"}}, "needs exposure.raw_frames"),
        ({"sharp": {"rule": "index"}}, "index, 0 or more"),
        ({"sharp": {"rule": "index", "index": -1}}, "index, 0 or more"),
        ({"sharp": {"index": 3}}, "index, 0 or more"),
        ({"spikes": None}, "spikes: missing"),
        ({"spikes": {"height": "4"}}, "spikes.height: expected int"),
        ({"split_spikes": {"test": PLAIN["spikes"]}}, "test is not one of the splits"),
        ({"splits": {"a/b": {}}}, "name 'a/b'"),
        ({"splits": {"val": {"folder": "../x"}}}, "inside the root"),
        ({"splits": {"val": {"folder": "{frame}"}}}, "inside the root"),
        ({"splits": {"val": {"folder": "a\0b"}}}, "inside the root"),
        ({"exposure": {"numbering": {"pattern": "(a+)+$"}}}, "may take too long"),
        ({"exposure": {"raw_frames": {"pattern": r"(\w+\s?)*", "spike_frames": 8}}}, "may take too long"),
        ({"scale": 0}, "scale 0"),
        ({"scale": "big"}, "scale"),
    ],
)
def test_refuses_a_manifest_that_cannot_work(changes, words):
    with pytest.raises(ConfigError) as caught:
        build(Manifest, changed(**changes), "mine.yaml")
    assert words in caught.value.problem
    assert caught.value.problem.startswith("mine.yaml:")


def test_a_rule_without_anything_that_names_its_frames_is_refused():
    values = changed(layout={"blurry": None}, exposure={"rule": "centred"}, blurry_from_spikes=2.0)
    with pytest.raises(ConfigError, match="nothing names the frames"):
        build(Manifest, values, "mine.yaml")


def test_a_manifest_without_splits_is_refused():
    with pytest.raises(ConfigError, match="at least one"):
        build(Manifest, PLAIN | {"splits": {}}, "mine.yaml")


def test_the_plain_manifest_of_these_tests_is_good():
    assert build(Manifest, PLAIN, "test").exposure.window == 5


def test_overrides_change_what_the_file_says():
    manifest = read_manifest("gopro_spike", ["spikes.height=250", "spikes.bit_order=msb", "scale=auto"])
    assert (manifest.spikes.height, manifest.spikes.width, manifest.spikes.bit_order) == (250, 640, "msb")
    assert manifest.scale == "auto"
    with pytest.raises(
        ConfigError, match=r"gopro_spike.yaml with spikes.hight=250:\n  spikes.hight: unknown key"
    ):
        read_manifest("gopro_spike", ["spikes.hight=250"])


def test_geometry_may_be_left_to_the_recordings():
    manifest = read_manifest("gopro_spike", ["spikes={geometry: auto, rate_hz: 1920}"])
    assert manifest.spikes == AutoFormat(geometry="auto", rate_hz=Fraction(1920))
    with pytest.raises(ConfigError, match=r"spikes\.rate_hz: missing"):
        read_manifest("gopro_spike", ["spikes={geometry: auto}"])


def test_a_name_longer_than_files_have_is_an_unknown_one():
    with pytest.raises(ConfigError, match="is not one of"):
        read_manifest("x" * 5000)


LOGGED = {"layout": {"log": "a.csv"}, "exposure": {"rule": "log", "window": None}}


@pytest.mark.parametrize(
    ("exposure", "words"),
    [
        ({"timestamps": {"frame": "f", "unit": "us"}}, "declare start and stop"),
        ({"timestamps": {"start": "a", "stop": "b", "unit": "us"}, "dialect": "csv"}, "leave dialect out"),
        ({"dialect": "pairs"}, "the dialect pairs needs clock"),
        ({"dialect": "indices", "log_rate_hz": 1000}, "has no clock"),
        ({"dialect": "csv", "clock": {"stamp": "end"}}, "clock.stamp goes with the dialect pairs"),
        ({"clock": {"origin": "then"}}, "exposure.clock.origin: expected"),
    ],
)
def test_settings_of_a_log_that_cannot_be_meant_are_refused(exposure, words):
    values = changed(**LOGGED)
    with pytest.raises(ConfigError, match=words):
        build(Manifest, values | {"exposure": values["exposure"] | exposure}, "test")


def test_logs_of_every_kind_can_be_described():
    values = changed(**LOGGED)
    for exposure in (
        {"dialect": "indices"},
        {"dialect": "pairs", "clock": {"stamp": "end", "origin": 1763626982598990000}},
        {"timestamps": {"start": "t", "duration": "d", "unit": "ms"}, "clock": {"origin": "first_frame"}},
    ):
        manifest = build(Manifest, values | {"exposure": values["exposure"] | exposure}, "test")
        assert build(Manifest, to_plain(manifest), "test") == manifest
