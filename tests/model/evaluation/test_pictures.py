"""The frames worth looking at are kept, and only those."""

import base64
import io
import random

import numpy as np
import pytest
import torch
from PIL import Image

from model.evaluation.judge import JudgedFrame
from model.evaluation.pictures import Album, data_uri, middle_frames, panels
from model.evaluation.scores import FrameScore


def frame(sequence: str, index: int, psnr: float | None) -> JudgedFrame:
    names = ("blurry", "restored", "spikes") + (() if psnr is None else ("sharp",))
    images = {name: torch.full((3, 16, 20), 10 * i, dtype=torch.uint8) for i, name in enumerate(names)}
    scores = (
        ()
        if psnr is None
        else (
            FrameScore(sequence, f"{index:06d}", index, "restored", "rgb8-all", {"psnr": psnr, "ssim": 0.5}),
        )
    )
    return JudgedFrame(sequence=sequence, frame=f"{index:06d}", index=index, images=images, scores=scores)


def test_the_worst_frame_of_the_worst_sequences_is_kept():
    album = Album(2, frozenset())
    for sequence, values in {"a": [30, 22, 25], "b": [40, 39, 38], "c": [28, 21, None]}.items():
        for index, value in enumerate(values):
            album.offer(frame(sequence, index, value))
    assert [(kept.sequence, kept.index) for kept in album.worst] == [("c", 1), ("a", 1)]


def test_the_worst_are_the_same_whatever_the_order_of_sequences():
    values = {f"s{i}": random.Random(i).sample(range(20, 40), 3) for i in range(9)}
    kept = []
    for order in (sorted(values), sorted(values, reverse=True)):
        album = Album(3, frozenset())
        for sequence in order:
            for index, value in enumerate(values[sequence]):
                album.offer(frame(sequence, index, value))
        kept.append([(one.sequence, one.index) for one in album.worst])
    assert kept[0] == kept[1]


def test_wanted_frames_are_kept_even_without_a_score():
    album = Album(1, frozenset({("a", 1)}))
    for index in range(3):
        album.offer(frame("a", index, None))
    assert [kept.index for kept in album.middle] == [1]
    assert album.worst == []


def test_middle_frames_are_spread_over_the_sequences():
    sequences = [(f"s{i}", 10 + i) for i in range(6)]
    assert middle_frames(sequences, 3) == {("s0", 5), ("s2", 6), ("s4", 7)}
    assert len(middle_frames(sequences, 99)) == 6
    assert middle_frames([("one", 1)], 4) == {("one", 0)}


def test_panels_are_in_a_row_with_what_there_is():
    larger = 13  # times 20 pixels across is 260, the first above 256
    assert panels(frame("a", 0, 30.0)).shape == (3, 8 + 20 + 16 * larger + 8, 8 + 4 * (20 * larger + 8))
    assert panels(frame("a", 0, None)).shape == (3, 8 + 20 + 16 * larger + 8, 8 + 3 * (20 * larger + 8))


def decoded(uri: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))


def test_small_pictures_keep_every_pixel():
    image = np.random.default_rng(0).integers(0, 256, (3, 30, 40), dtype=np.uint8)
    uri = data_uri(image)
    assert uri.startswith("data:image/png;base64,")
    assert (np.asarray(decoded(uri)).transpose(2, 0, 1) == image).all()


@pytest.mark.parametrize(("size", "shown"), [((720, 1280), (1280, 720)), ((1440, 2560), (1280, 720))])
def test_large_pictures_are_shrunk_and_compressed(size, shown):
    uri = data_uri(np.zeros((3, *size), np.uint8))
    assert uri.startswith("data:image/jpeg;base64,")
    assert decoded(uri).size == shown
