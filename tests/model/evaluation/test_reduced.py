"""What is kept of a frame: its size on the page, its exact error, and the places that matter."""

import numpy as np
import torch

from model.evaluation import reduced
from model.evaluation.judge import JudgedFrame
from model.evaluation.reduced import PATCH, error_map, reduce_frame, shrink
from model.evaluation.scores import FrameScore


def judged(height: int = 600, width: int = 1200, **images: np.ndarray) -> JudgedFrame:
    """A grey frame with some other pictures."""
    names = ("blurry", "restored", "sharp", "spikes")
    plain = {name: torch.full((3, height, width), 100, dtype=torch.uint8) for name in names}
    given = {name: torch.from_numpy(image) for name, image in images.items()}
    score = FrameScore("s", "000003", 3, "restored", "rgb8-all", {"psnr": 30.0, "ssim": 0.9})
    return JudgedFrame(sequence="s", frame="000003", index=3, images=plain | given, scores=(score,))


def grey(height: int = 600, width: int = 1200) -> np.ndarray:
    return np.full((3, height, width), 100, np.uint8)


def test_the_error_is_the_rounded_mean_of_the_channels():
    image, sharp = np.zeros((3, 1, 4), np.uint8), np.zeros((3, 1, 4), np.uint8)
    image[:, 0] = [[0, 1, 255, 10], [0, 0, 255, 20], [0, 0, 255, 0]]
    sharp[:, 0] = [[0, 0, 0, 20], [0, 0, 0, 10], [0, 0, 0, 0]]
    # 0 / 3; 1 / 3 rounds to 0; 765 / 3; (10 + 10 + 0) / 3 = 6.67 rounds to 7.
    assert error_map(image, sharp).tolist() == [[0, 0, 255, 7]]


def test_shrinking_takes_means_and_keeps_proportions():
    image = np.zeros((1, 4, 8), np.uint8)
    image[0, :2, :2] = [[0, 100], [100, 200]]
    small = shrink(image, 4)
    assert small.shape == (1, 2, 4) and small[0, 0, 0] == 100 and small[0, 1, 1] == 0
    assert shrink(image, 8) is image


def test_small_frames_are_kept_as_they_are():
    frame = judged(30, 40)
    kept = reduce_frame(frame)
    assert kept.patches == () and (kept.height, kept.width) == (30, 40) and kept.psnrs == {"restored": 30.0}
    for name, image in frame.images.items():
        np.testing.assert_array_equal(kept.images[name], image.numpy())
    assert set(kept.errors) == {"blurry", "restored"}


def test_large_frames_are_shrunk_and_keep_the_places_of_largest_error_and_gain():
    restored, blurry = grey(), grey()
    restored[:, 100:150, 900:950] += 50  # wrong here, and blurry is right
    blurry[:, 400:450, 100:150] += 90  # wrong here, and restored is right
    kept = reduce_frame(judged(restored=restored, blurry=blurry))
    assert kept.images["restored"].shape == (3, 400, 800) and kept.errors["restored"].shape == (400, 800)
    worst, best = kept.patches
    assert (worst.reason, best.reason) == ("largest error", "largest gain")
    for patch, image in ((worst, restored), (best, blurry)):
        rows, columns = slice(patch.top, patch.top + PATCH), slice(patch.left, patch.left + PATCH)
        name = "restored" if image is restored else "blurry"
        np.testing.assert_array_equal(patch.images[name], image[:, rows, columns])
        assert patch.errors[name].sum() == (50 if name == "restored" else 90) * 50 * 50


def test_places_that_overlap_are_kept_once():
    restored, blurry = grey(), grey()
    restored[:, 100:150, 900:950] += 50
    blurry[:, 110:160, 900:950] += 90
    assert [patch.reason for patch in reduce_frame(judged(restored=restored, blurry=blurry)).patches] == [
        "largest error"
    ]


def test_without_a_sharp_frame_the_place_of_largest_change_is_kept():
    restored = grey()
    restored[:, 300:340, 600:640] += 20
    frame = judged(restored=restored)
    del frame.images["sharp"]
    kept = reduce_frame(frame)
    assert kept.errors == {} and [patch.reason for patch in kept.patches] == ["largest change"]
    (patch,) = kept.patches
    assert patch.top <= 300 and patch.top + PATCH >= 340 and patch.left <= 600 and patch.left + PATCH >= 640


def test_frames_narrower_than_a_patch_have_a_narrow_one():
    frame = judged(100, 4000)
    assert reduced.WHOLE_PIXELS < 100 * 4000
    assert reduce_frame(frame).patches[0].images["sharp"].shape == (3, 100, PATCH)
