"""Facts about a camera: read where they are good, refused where they are not, never guessed."""

import os
from pathlib import Path

import pytest

from pipeline.camera_facts import MAX_CAMERA_BYTES, read_camera, reset_of, threshold_of
from pipeline.errors import ConfigError, FormatError


@pytest.mark.parametrize(
    "text", ["threshold: 2\nreset: zero", "camera: {threshold: 2, reset: zero}\nlight: linear"]
)
def test_facts_stand_at_the_top_or_in_a_group(text, tmp_path: Path):
    (tmp_path / "camera.yaml").write_text(text)
    facts = read_camera(tmp_path / "camera.yaml")
    assert (threshold_of(facts), reset_of(facts)) == (2.0, "zero")


@pytest.mark.parametrize("text", ["# nothing", "serial: 17", "camera: PKU 250x400"])
def test_what_is_not_said_is_not_known(text, tmp_path: Path):
    (tmp_path / "camera.yaml").write_text(text)
    facts = read_camera(tmp_path / "camera.yaml")
    assert threshold_of(facts) is None and reset_of(facts) is None


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("threshold: 0", "threshold 0"),
        ("threshold: -1", "threshold -1"),
        ("threshold: true", "threshold True"),
        ("threshold: 2e0", "threshold '2e0'"),
        ("threshold: .nan", "JSON"),
        ("gain: .inf", "JSON"),
        ("reset: none", "reset 'none'"),
        ("made: 2026-01-01", "date"),
        ("a: " + "x" * MAX_CAMERA_BYTES, "more than the 16384"),
    ],
)
def test_refuses_by_name(text, problem, tmp_path: Path):
    (tmp_path / "camera.yaml").write_text(text)
    with pytest.raises(FormatError, match=r"camera\.yaml") as caught:
        read_camera(tmp_path / "camera.yaml")
    assert problem in caught.value.problem


@pytest.mark.parametrize("text", ["a: &x [1]\nb: *x", "- 1", "a: [", "a: " + "[" * 8000])
def test_refuses_bombs_and_what_is_no_mapping(text, tmp_path: Path):
    (tmp_path / "camera.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"camera\.yaml"):
        read_camera(tmp_path / "camera.yaml")


def test_refuses_a_pipe_without_waiting_for_it(tmp_path: Path):
    os.mkfifo(tmp_path / "camera.yaml")
    with pytest.raises(FormatError, match="a named pipe"):
        read_camera(tmp_path / "camera.yaml")
