import numpy as np
import pytest

from pipeline.recognition.smoothness import has_head, score_reading, smoothness
from pipeline.spike_format import SpikeFormat


def picture(height: int, width: int) -> np.ndarray:
    """A smooth image of which opposite edges do not go on into each other."""
    y, x = np.mgrid[:height, :width]
    return 50 + 20 * np.sin(y / 9 + x / 30) + 20 * np.cos((x - 2 * y) / 17) + 0.3 * x


def read_as(height: int, width: int, **words: object) -> SpikeFormat:
    return SpikeFormat(height=height, width=width, rate_hz=1, **words)


def test_smoothness_is_the_correlation_of_neighbours():
    image = np.array([[0.0, 1.0, 2.0], [3.0, 5.0, 4.0]])
    rows, columns = smoothness(image)
    assert rows == pytest.approx(np.corrcoef([0, 1, 2], [3, 5, 4])[0, 1])
    assert columns == pytest.approx(np.corrcoef([0, 1, 3, 5], [1, 2, 5, 4])[0, 1])


def test_a_flat_image_is_undecided():
    assert smoothness(np.ones((4, 5))) == (0.0, 0.0)
    assert smoothness(np.ones((1, 1))) == (0.0, 0.0)


def test_two_rows_read_as_one_break_in_the_middle():
    image = picture(80, 96)
    right = score_reading(image, read_as(80, 96), 1, None)
    assert not right.folded and right.score == right.smooth > 0.95 and right.row_ends > 5
    for parts in (2, 4, 5, 8):
        wrong = score_reading(image.reshape(80 // parts, -1), read_as(80 // parts, 96 * parts), 1, None)
        assert wrong.folded and wrong.score == wrong.smooth / 2


def test_rows_end_where_the_picture_does():
    image = picture(80, 96)
    right = score_reading(image, read_as(80, 96), 1, None).row_ends
    assert score_reading(image.reshape(120, 64), read_as(120, 64), 1, None).row_ends < 0.5 * right
    assert score_reading(np.ones((8, 8)), read_as(8, 8), 1, None).row_ends == 0


def test_another_frame_period_halves_the_score():
    image, fmt = picture(80, 96), read_as(80, 96)
    whole = score_reading(image, fmt, 1, True)
    assert score_reading(image, fmt, 1, False).score == whole.score / 2 == whole.smooth / 2


def test_head_columns_do_not_go_on_with_the_picture():
    image = np.concatenate([picture(80, 96), np.random.default_rng(0).random((80, 16))], axis=1)
    fmt = read_as(80, 112, valid_columns=(0, 96))
    assert has_head(image, fmt)
    assert score_reading(image, fmt, 1, None).score > 0.95
    assert not has_head(picture(80, 112), fmt)


def test_settings_are_the_words_that_declare_the_reading():
    fmt = read_as(2, 32, bit_order="msb", valid_columns=((0, 12), (16, 28)))
    score = score_reading(np.zeros((2, 32)), fmt, 7, None)
    assert score.settings() == (
        "spikes.height=2 spikes.width=32 spikes.bit_order=msb spikes.padding=none"
        " spikes.valid_columns=[[0,12],[16,28]]"
    )
    assert str(score) == "7 frames of 2x32 (24 valid) msb" and score.size == "2x32 (24 valid)"
