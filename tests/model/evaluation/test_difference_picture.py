from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from model.compare import CompareConfig, compare
from model.evaluation.difference_picture import DPI, WIDTH, draw_comparison

GREEN, RED, GREY = (31, 138, 91), (192, 57, 43), (107, 114, 128)


def has(picture: Path, colour: tuple[int, ...]) -> bool:
    image = Image.open(picture)
    assert image.width == round(WIDTH * DPI)
    return bool((np.asarray(image.convert("RGB")) == colour).all(-1).any())


@pytest.mark.parametrize(("shift", "there", "absent"), [(0.2, GREEN, RED), (-0.2, RED, GREEN)])
def test_draws_gains_green_and_losses_red(
    shift: float, there: tuple[int, ...], absent: tuple[int, ...], scored_run, tmp_path: Path
) -> None:
    scores = {f"$s{i}_{'x' * 50}": [30.0 + i + 0.01 * j for j in range(9)] for i in range(42)}
    shifted = {name: [value + shift for value in values] for name, values in scores.items()}
    found = compare(scored_run("a", scores), scored_run("b", shifted), CompareConfig(samples=1000))
    draw_comparison(found, tmp_path / "out" / "picture.png")
    picture = tmp_path / "out" / "picture.png"
    assert has(picture, there) and not has(picture, absent)


def test_draws_what_has_no_interval_and_no_end(scored_run, tmp_path: Path) -> None:
    a, b = scored_run("a", {"s1": [30, 31]}), scored_run("b", {"s1": [30, "inf"]})
    draw_comparison(compare(a, b), tmp_path / "picture.png")
    assert has(tmp_path / "picture.png", GREY)
