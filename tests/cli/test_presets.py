from pathlib import Path

import pytest

from cli.presets import SHIPPED, config_path
from pipeline.config import load_config
from pipeline.errors import UsageError


def test_a_bare_name_is_a_shipped_preset() -> None:
    assert config_path(Path("tiny")) == SHIPPED / "tiny.yaml"


def test_a_file_of_that_name_goes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("tiny").write_text("steps: 1")
    assert config_path(Path("tiny")) == Path("tiny")
    assert config_path(tmp_path / "tiny") == tmp_path / "tiny"


def test_a_directory_of_that_name_does_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("tiny").mkdir()
    assert config_path(Path("tiny")) == SHIPPED / "tiny.yaml"


@pytest.mark.parametrize(
    ("name", "problem", "fix"),
    [
        ("tinny", "neither a file nor one of", "did you mean tiny?"),
        ("configs/rgbonly.yaml", "configs/rgbonly.yaml: no such file", "did you mean rgb_only?"),
        ("xyz", "neither a file nor one of base, rgb_only, tiny, vrt_gopro", "path of a .yaml file"),
        ("/", "a directory", "path of a .yaml file"),
    ],
)
def test_says_what_may_be_meant(name: str, problem: str, fix: str) -> None:
    with pytest.raises(UsageError) as caught:
        config_path(Path(name))
    assert problem in caught.value.problem and fix in caught.value.fix and caught.value.exit_code == 2


@pytest.mark.parametrize("preset", sorted(SHIPPED.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_preset_is_a_config(preset: Path) -> None:
    from model.training.config import TrainConfig

    load_config(TrainConfig, config_path(Path(preset.stem)), ["store=S", "init=W"])


def test_a_config_of_ones_own_extends_a_preset(tmp_path: Path) -> None:
    from model.training.config import TrainConfig

    (tmp_path / "mine.yaml").write_text(f"extends: {SHIPPED / 'rgb_only.yaml'}\nstore: S\nsteps: 7\n")
    config = load_config(TrainConfig, config_path(tmp_path / "mine.yaml"))
    assert (config.steps, config.network.fusion, config.optim.lr) == (7, "none", 2e-4)
