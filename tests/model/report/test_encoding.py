"""Pictures on the page: exact where they are said to be, and never more than fit."""

import base64
import io
import itertools
import json

import numpy as np
import pytest
from PIL import Image, features

from model.evaluation.pictures import LOSS, MIDDLE, SPREAD, WORST
from model.evaluation.reduced import Patch, ReducedFrame
from model.report.encoding import LEVELS, encode_frame, encode_frames, lossless_uri


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def frame(index: int = 0, height: int = 30, width: int = 40, full: int = 1) -> ReducedFrame:
    """A frame that was `full` times as large, with a patch if it was larger at all."""
    patch = Patch(top=40, left=80, reason="largest error", images={"restored": noise(3, 256, 256)}, errors={})
    return ReducedFrame(
        sequence="a",
        frame=f"{index:06d}",
        index=index,
        height=height * full,
        width=width * full,
        psnrs={},
        images={"blurry": noise(3, height, width), "restored": noise(3, height, width, seed=1)},
        errors={"restored": noise(height, width)},
        patches=() if full == 1 else (patch,),
    )


def decoded(uri: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))))


def test_small_frames_keep_every_pixel():
    made = encode_frame(frame(), (WORST,), LEVELS[0])
    assert made["exact"] and made["reasons"] == (WORST,) and (made["width"], made["height"]) == (40, 30)
    np.testing.assert_array_equal(
        decoded(made["images"]["restored"]).transpose(2, 0, 1), noise(3, 30, 40, seed=1)
    )
    error = decoded(made["errors"]["restored"])
    np.testing.assert_array_equal(error if error.ndim == 2 else error[..., 0], noise(30, 40))


def test_without_webp_pictures_are_png(monkeypatch):
    monkeypatch.setattr(features, "check", lambda name: False)
    uri = lossless_uri(noise(3, 30, 40))
    assert uri.startswith("data:image/png;base64,")
    np.testing.assert_array_equal(decoded(uri).transpose(2, 0, 1), noise(3, 30, 40))


def test_large_frames_are_jpeg_and_their_patches_keep_every_pixel():
    level = LEVELS[3]
    made = encode_frame(frame(height=450, width=800, full=2), (WORST,), level)
    assert not made["exact"] and made["images"]["blurry"].startswith("data:image/jpeg")
    assert decoded(made["images"]["blurry"]).shape == (405, 720, 3)
    assert decoded(made["errors"]["restored"]).shape == (270, 480)
    (patch,) = made["patches"]
    # The middle 128 of 256 pixels.
    assert (patch["top"], patch["left"], patch["width"], patch["height"]) == (40 + 64, 80 + 64, 128, 128)
    np.testing.assert_array_equal(
        decoded(patch["images"]["restored"]).transpose(2, 0, 1), noise(3, 256, 256)[:, 64:192, 64:192]
    )


def test_frames_share_the_best_level_that_fits():
    pictured = [(frame(i, 150, 200), (MIDDLE,)) for i in range(4)]
    whole = encode_frames(pictured, 10**9)
    size = sum(len(text) for _, text in whole.frames)
    assert [json.loads(text)["exact"] for _, text in whole.frames] == [True] * 4 and whole.lossy_side is None
    smaller = encode_frames(pictured, size // 2)
    assert [json.loads(text)["exact"] for _, text in smaller.frames] == [False] * 4
    assert (
        smaller.lossy_side
        and smaller.dropped == 0
        and sum(len(text) for _, text in smaller.frames) <= size // 2
    )


def test_what_matters_least_is_left_out_where_nothing_else_helps():
    pictured = [(frame(i, 60, 80), (kind,)) for i, kind in enumerate((SPREAD, WORST, MIDDLE, LOSS))]
    one = len(json.dumps(encode_frame(*pictured[0], LEVELS[-1])))
    for room, kept in ((4, [0, 1, 2, 3]), (3, [1, 2, 3]), (2, [1, 3]), (1, [1]), (0, [])):
        found = encode_frames(pictured, round(one * (room + 0.5)) if room else 0)
        assert [one.index for one, _ in found.frames] == kept and found.dropped == 4 - len(kept)


def test_the_page_is_told_how_large_frames_are_shown():
    assert (
        encode_frames([(frame(height=450, width=800, full=2), (WORST,))], 10**9).lossy_side == LEVELS[0].side
    )
    assert encode_frames([], 10**9).lossy_side is None


@pytest.mark.parametrize(("level", "next_level"), itertools.pairwise(LEVELS))
def test_levels_fall(level, next_level):
    assert next_level.side <= level.side and next_level.quality < level.quality
    assert next_level.lossless <= level.lossless and next_level.patch < level.patch
