import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from model.training.curves import STYLE, draw_run, resumed_at, scientific, short, smooth
from pipeline.errors import TrainingError


def write(run: Path, steps: int, **changes: object) -> None:
    values = {
        "loss": 0.1,
        "lr": 1e-3,
        "grad_norm": 0.5,
        "skipped": 0,
        "samples_per_s": 2.0,
        "data_share": 0.1,
    }
    lines = [{"step": step, "steps": 90, **values, **changes} for step in range(1, steps + 1)]
    lines += [{"step": steps, "val_psnr": 30.0, "val_frames": 3, "best": True}]
    run.mkdir(exist_ok=True)
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def size(path: Path) -> tuple[int, int]:
    image = Image.open(path)
    image.load()
    assert len(np.unique(np.asarray(image))) > 10
    return image.size


def test_draws_what_there_is_at_every_stage(tmp_path: Path) -> None:
    run, picture = tmp_path / "run_$a_b", tmp_path / "progress.png"
    write(run, 1)
    (run / "run.json").write_text("{ damaged")
    draw_run(run, picture)
    first = size(picture)
    odd = {"loss": None, "grad_norm": None, "skipped": 3, "samples_per_s": None, "data_share": None}
    write(run, 60, **odd)
    (run / "run.json").write_text(json.dumps({"sessions": [{"from_step": 0}, {"from_step": 30}]}))
    draw_run(run, picture)
    assert size(picture) == first
    assert min(first) > 1000 and first[0] < first[1]  # as a phone is held
    assert sorted(path.name for path in tmp_path.iterdir()) == ["progress.png", run.name]


def test_leaves_the_state_of_matplotlib_alone(tmp_path: Path) -> None:
    import matplotlib

    before = [matplotlib.rcParams[key] for key in STYLE]
    write(tmp_path / "run", 2)
    draw_run(tmp_path / "run", tmp_path / "x.png")
    assert [matplotlib.rcParams[key] for key in STYLE] == before and "matplotlib.pyplot" not in sys.modules


def test_without_a_line_there_is_nothing_to_draw(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="no step was logged"):
        draw_run(tmp_path, tmp_path / "progress.png")
    assert not list(tmp_path.iterdir())


def test_resumed_where_the_sessions_after_the_first_began(tmp_path: Path) -> None:
    assert resumed_at(tmp_path) == []
    (tmp_path / "run.json").write_text(json.dumps({"sessions": [{"from_step": n} for n in (0, 4, 9)]}))
    assert resumed_at(tmp_path) == [4, 9]
    (tmp_path / "run.json").write_text('{"sessions": [1, 2]}')
    assert resumed_at(tmp_path) == []


def test_smoothing_is_a_mean_that_forgets_and_steps_over_what_is_not_finite() -> None:
    assert smooth(np.full(100, 2.0)) == pytest.approx(2.0)
    found = smooth(np.array([math.nan, *[1.0, math.nan] * 20]))
    assert math.isnan(found[0]) and found[1:] == pytest.approx(1.0)
    step = smooth(np.repeat([0.0, 1.0], 500))
    assert step[499] == 0 and 0 < step[501] < 0.3 and step[-1] > 0.99


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (450, "450"), (1500, "1.5k"), (20_000, "20k"), (1_200_000, "1.2M")]
)
def test_steps_in_few_characters(value: float, text: str) -> None:
    assert short(value) == text


@pytest.mark.parametrize(("value", "text"), [(0, "0"), (2e-4, "2e-4"), (1.5e-4, "1.5e-4"), (0.004, "4e-3")])
def test_rates_in_few_characters(value: float, text: str) -> None:
    assert scientific(value) == text
