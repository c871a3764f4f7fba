"""Frames that do not fit their spikes: the cause is found by trying it."""

import logging
import shutil

import numpy as np
import pytest

from pipeline.alignment.mismatches import likely_cause, questionable
from pipeline.images import read_rgb, write_png
from pipeline.ingest import ingest
from pipeline.manifest import read_manifest
from pipeline.physics import LightFit
from pipeline.store import open_store


def fit(r2, attainable=0.95):
    return LightFit(slope=0.1, offset=0.0, r2=r2, gamma=1.0, attainable=attainable)


def test_a_low_fit_is_questioned_where_a_high_one_was_possible():
    assert questionable([fit(0.2), fit(0.3), fit(0.9)]) == 0.3
    assert questionable([fit(0.9), fit(0.8), fit(0.1)]) is None
    assert questionable([fit(0.2, attainable=0.5)] * 3) is None  # flat or dark: nothing better can be had
    assert questionable([]) is None


@pytest.fixture
def raw(moving_raw, tmp_path):
    return shutil.copytree(moving_raw, tmp_path / "raw")


def warnings_of(raw, out, caplog, manifest=None):
    with caplog.at_level(logging.WARNING):
        ingest(raw, out, manifest or read_manifest("simulated"), workers=1)
    return [record.getMessage() for record in caplog.records]


def test_sound_recordings_are_not_questioned(raw, tmp_path, caplog):
    assert warnings_of(raw, tmp_path / "store", caplog) == []


def test_flipped_rows_are_named(raw, tmp_path):
    ingest(raw, tmp_path / "store", read_manifest("simulated"), workers=1)
    store = open_store(tmp_path / "store")
    sequence = store.sequence("train", "train_0000")
    vars(sequence)["blurry"] = sequence.blurry[:][:, :, ::-1]  # an ingest refuses clear cases
    assert "rows of the spikes are flipped" in likely_cause(sequence, store.scale)


def test_frames_of_another_scene_are_said_to_be(raw, tmp_path, caplog):
    for path in (raw / "train/train_0000/blurry").iterdir():
        shutil.copy(raw / "test/test_0000/blurry" / path.name, path)
    (message,) = warnings_of(raw, tmp_path / "store", caplog)
    assert "may not show the same scene" in message


def test_frames_in_another_order_are_named(raw, tmp_path):
    blurry = sorted((raw / "train/train_0000/blurry").iterdir())
    images = [read_rgb(path) for path in blurry]
    for path, image in zip(blurry, [*images[1:], images[0]], strict=True):
        write_png(path, image)
    ingest(raw, tmp_path / "store", read_manifest("simulated"), workers=1)
    store = open_store(tmp_path / "store")
    assert "another frame's image" in likely_cause(store.sequence("train", "train_0000"), store.scale)


@pytest.mark.parametrize(
    ("mirrored", "words"),
    [
        (lambda image: image[:, :, ::-1], "columns of the spikes are mirrored"),
        (lambda image: image[:, ::-1, ::-1], "turned by 180 degrees"),
        (lambda image: 255 * np.exp(9 * (image / 255.0 - 1)), "neither linear nor of gamma"),
    ],
)
def test_other_causes(raw, tmp_path, mirrored, words):
    for path in (raw / "train/train_0000/blurry").iterdir():
        write_png(path, np.ascontiguousarray(np.round(mirrored(read_rgb(path))).astype(np.uint8)))
    ingest(raw, tmp_path / "store", read_manifest("simulated"), workers=1)
    store = open_store(tmp_path / "store")
    assert words in likely_cause(store.sequence("train", "train_0000"), store.scale)


def test_an_exposure_far_away_is_named(raw, tmp_path):
    log = raw / "train/train_0000/exposures.csv"
    header, *rows = log.read_text().splitlines()
    spans = [(int(a) + 24 * 250_000, int(b) + 24 * 250_000) for _, a, b in (row.split(",") for row in rows)]
    kept = [f"{k:06d},{a},{b}" for k, (a, b) in enumerate(spans[:-1])]
    log.write_text("\n".join([header, *kept]) + "\n")
    for kind in ("blurry", "sharp"):
        (raw / f"train/train_0000/{kind}/000004.png").unlink()
    ingest(raw, tmp_path / "store", read_manifest("simulated"), workers=1)
    store = open_store(tmp_path / "store")
    assert "spike frames away fits" in likely_cause(store.sequence("train", "train_0000"), store.scale)
