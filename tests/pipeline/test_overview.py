from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from pipeline.config import to_plain
from pipeline.dat import write_dat
from pipeline.images import read_rgb
from pipeline.ingest import ingest
from pipeline.overview import draw_candidates, draw_store, store_facts
from pipeline.previews.preview import to_grey8
from pipeline.recognition.smoothness import GeometryScore
from pipeline.spike_format import SpikeFormat
from pipeline.store import open_store
from pipeline.voxelize import voxelize


@pytest.fixture
def store(raw, tmp_path):
    (raw.root / "train/b/sharp/001.png").unlink()  # the middle one
    ingest(raw.root, tmp_path / "store", raw.manifest)
    voxelize(tmp_path / "store", num_bins=8)
    return open_store(tmp_path / "store")


def test_facts_of_a_store(store):
    facts = store_facts(store)
    assert {key: facts[key] for key in ("kind", "sequences", "frames", "stages", "fingerprint")} == {
        "kind": "store",
        "sequences": 3,
        "frames": 9,
        "stages": ["ingest", "voxelize/k8"],
        "fingerprint": store.fingerprint,
    }
    assert facts["stats"]["k8"]["log1p"]["mean"] == store.normalization("k8").mean
    assert "histogram" not in facts["stats"]["k8"]
    rows = {f"{row['split']}/{row['name']}": row for row in facts["sequences_list"]}
    assert rows["train/a"] == {
        "split": "train",
        "name": "a",
        "frames": 3,
        "runs": 1,
        "sharp": 3,
        "rgb": "36x40",
        "spikes": "70 of 18x20",
        "r2": rows["train/a"]["r2"],
        "exposure": "4 to 41",
        "threshold": None,
        "reset": None,
    }
    r2 = [fit.r2 for fit in store.sequence("train", "a").light]
    assert rows["train/a"]["r2"] == [round(sorted(r2)[1], 3), round(min(r2), 3)]
    assert rows["train/b"]["sharp"] == 2
    assert [timing["sequence"] for timing in facts["timing"]] == ["train/a", "train/b", "test/c"]
    assert facts["timing"][0]["verdict"] == "too few to tell" and facts["timing"][0]["rounding_ns"] == 0


def test_facts_of_a_store_tell_of_the_cameras(raw, manifest_of, tmp_path):
    layout = to_plain(raw.manifest.layout) | {"camera": "{split}/{sequence}/camera.yaml"}
    (raw.root / "train/a/camera.yaml").write_text("threshold: 3\nreset: zero\nserial: X1")
    ingest(raw.root, tmp_path / "store", manifest_of(layout=layout))
    store = open_store(tmp_path / "store")
    facts = store_facts(store)
    assert facts["cameras"] == [{"threshold": 3.0, "reset": "zero"}, {"threshold": None, "reset": None}]
    assert [row["threshold"] for row in facts["sequences_list"]] == [3.0, None, None]
    assert store.sequence("train", "a").camera == {"threshold": 3, "reset": "zero", "serial": "X1"}
    draw_store(store, tmp_path / "store.png")
    picture, rate = read_rgb(tmp_path / "store.png"), raw.spikes("train/a")[11:52].mean(axis=0)
    for scaled in (
        to_grey8(rate * 3, white=1.0),
        to_grey8(rate),
    ):  # with threshold 3; as bright as it gets without one
        assert contains(picture, np.broadcast_to(scaled, (3, *scaled.shape))) == (scaled.mean() > 200)


def test_a_picture_of_a_store_has_a_row_for_every_sequence(store, tmp_path):
    draw_store(store, tmp_path / "store.png")
    picture = read_rgb(tmp_path / "store.png")
    blurry = store.sequence("train", "a").blurry[1]
    assert picture.shape[1] > 3 * 36 and picture.shape[2] > 4 * 40
    assert contains(picture, blurry) and contains(picture, store.sequence("train", "b").blurry[1])
    assert contains(picture, store.sequence("train", "a").sharp[1])
    assert not contains(
        picture, np.zeros((3, 36, 40), np.uint8)
    )  # the sharp frame that train/b does not have


def test_a_picture_shows_no_more_rows_than_asked(store, tmp_path):
    draw_store(store, tmp_path / "one.png", rows=1)
    draw_store(store, tmp_path / "all.png")
    heights = [read_rgb(tmp_path / name).shape[1] for name in ("one.png", "all.png")]
    assert heights[0] < heights[1] / 2


def contains(picture, image):
    """Is the image in the picture, pixel for pixel?"""
    height, width = image.shape[1:]
    windows = np.lib.stride_tricks.sliding_window_view(picture, (height, width), axis=(1, 2))
    first = np.argwhere((windows[:, :, :, 0, 0] == image[:, None, None, 0, 0]).all(axis=0))
    return any((windows[:, y, x] == image).all() for y, x in first)


def test_candidates_are_drawn_as_they_would_be_read(tmp_path):
    rng = np.random.default_rng(0)
    fmt = SpikeFormat(height=32, width=64, rate_hz=Fraction(1))
    rate = np.linspace(0, 1, 64)[None, None]
    write_dat(tmp_path / "a.dat", (rng.random((100, 32, 64)) < rate).astype(np.uint8), fmt)
    scores = [
        GeometryScore(
            reading=replace(fmt, height=height, width=width, flip="none"),
            frames=100,
            score=0.5,
            score_rows=0.5,
            score_columns=0.5,
            row_ends=1.0,
            in_period=None,
        )
        for height, width in ((32, 64), (64, 32))
    ]
    draw_candidates(tmp_path / "a.dat", scores, tmp_path / "a.png")
    picture = read_rgb(tmp_path / "a.png")[0].astype(int)
    assert picture.shape[0] > 64 and picture.shape[1] > 128
    declared = picture[-8 - 64 :][:32, 8 : 8 + 64]
    assert declared[:, :16].mean() < 80 < 170 < declared[:, 48:].mean()
