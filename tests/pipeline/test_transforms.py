import numpy as np
import pytest

from pipeline.transforms import Augmentation, draw_augmentation


def test_windows_match_at_every_scale():
    how = Augmentation(row=3, column=5)
    assert how.window(4, 1) == (slice(3, 7), slice(5, 9))
    assert how.window(16, 4) == (slice(12, 28), slice(20, 36))


def turned(frames: np.ndarray, voxels: bool = False, **how: bool) -> np.ndarray:
    augmentation = Augmentation(row=0, column=0, **how)
    out = np.empty_like(frames)
    (augmentation.unturned_voxels if voxels else augmentation.unturned)(out)[...] = frames
    return out


def test_turns_by_hand():
    frames = np.array([[[[1, 2], [3, 4]]], [[[5, 6], [7, 8]]]], np.uint8)  # (2, 1, 2, 2)

    def lists(**how):
        return turned(frames, **how)[:, 0].tolist()

    assert lists() == [[[1, 2], [3, 4]], [[5, 6], [7, 8]]]
    assert lists(transpose=True)[0] == [[1, 3], [2, 4]]
    assert lists(flip_rows=True)[0] == [[3, 4], [1, 2]]
    assert lists(flip_columns=True)[0] == [[2, 1], [4, 3]]
    assert lists(transpose=True, flip_columns=True)[0] == [[3, 1], [4, 2]]  # a quarter turn clockwise
    assert lists(transpose=True, flip_rows=True)[0] == [[2, 4], [1, 3]]  # and one against the clock
    assert lists(reverse=True) == [[[5, 6], [7, 8]], [[1, 2], [3, 4]]]


def test_reversed_voxels_have_reversed_bins():
    counts = np.arange(2 * 3).reshape(2, 3, 1, 1).astype(np.uint8)
    assert turned(counts, voxels=True, reverse=True).ravel().tolist() == [5, 4, 3, 2, 1, 0]
    assert turned(counts, voxels=True).ravel().tolist() == [0, 1, 2, 3, 4, 5]


def test_draws_reach_every_corner_and_symmetry_and_no_other():
    rng = np.random.default_rng(0)
    drawn = [draw_augmentation(rng, (2, 1), flips=True, rotations=True, reversal=True) for _ in range(600)]
    assert {(d.row, d.column) for d in drawn} == {(r, c) for r in range(3) for c in range(2)}
    assert len({(d.transpose, d.flip_rows, d.flip_columns, d.reverse) for d in drawn}) == 16


@pytest.mark.parametrize("name", ["flips", "rotations", "reversal"])
def test_draws_only_what_is_wanted(name):
    wanted = {"flips": True, "rotations": True, "reversal": True, name: False}
    fields = {"flips": ("flip_rows", "flip_columns"), "rotations": ("transpose",), "reversal": ("reverse",)}
    rng = np.random.default_rng(0)
    drawn = [draw_augmentation(rng, (0, 0), **wanted) for _ in range(100)]
    for kind, attributes in fields.items():
        for attribute in attributes:
            assert any(getattr(d, attribute) for d in drawn) == wanted[kind]


def test_a_draw_does_not_depend_on_what_is_switched_off():
    one = draw_augmentation(np.random.default_rng(5), (9, 9), flips=True, rotations=True, reversal=False)
    other = draw_augmentation(np.random.default_rng(5), (9, 9), flips=False, rotations=False, reversal=False)
    assert (one.row, one.column) == (other.row, other.column)
