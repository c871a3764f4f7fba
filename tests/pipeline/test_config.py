import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Literal

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from model.evaluation.config import EvaluateConfig
from model.training.config import TrainConfig
from pipeline.clips import ClipConfig
from pipeline.config import build, from_overrides, load_config, to_plain
from pipeline.errors import ConfigError
from pipeline.manifest import Manifest, read_manifest
from pipeline.simulation.rig import RigConfig
from pipeline.simulation.scenes import SceneConfig
from pipeline.simulation.video_takes import VideoConfig
from pipeline.spike_format import SpikeFormat
from pipeline.yaml_files import dump_yaml

REPOSITORY = Path(__file__).parents[2]


@dataclass(frozen=True, kw_only=True, slots=True)
class Inner:
    lr: float = 1.0e-4
    steps: int = 3

    def __post_init__(self) -> None:
        if self.steps < 0:
            raise ValueError(f"steps {self.steps} is negative")


@dataclass(frozen=True, kw_only=True, slots=True)
class Outer:
    name: str
    on: bool = True
    kind: Literal["a", "b", 1] = "a"
    rate: Fraction = Fraction(20000)
    pair: tuple[int, float] = (1, 2.0)
    many: tuple[str, ...] = ()
    scale: int | Literal["auto"] = "auto"
    path: Path | None = None
    inner: Inner = field(default_factory=Inner)
    maybe: Inner | None = None
    by_name: Mapping[str, Inner] = field(default_factory=dict)


def problems_of(values, cls=Outer) -> str:
    with pytest.raises(ConfigError) as caught:
        build(cls, values, "x.yaml")
    return caught.value.problem


def test_reads_every_kind_of_value():
    values = {
        "name": "n",
        "on": False,
        "kind": 1,
        "rate": "30000/1001",
        "pair": [3, 4],
        "many": ["x", "y"],
        "scale": 2,
        "path": "a/b",
        "inner": {"lr": 1},
        "maybe": {"steps": 5},
        "by_name": {"z": {"steps": 7}},
    }
    found = build(Outer, values, "x.yaml")
    assert found.rate == Fraction(30000, 1001) and found.pair == (3, 4.0) and found.path == Path("a/b")
    assert found.inner == Inner(lr=1.0) and type(found.inner.lr) is float
    assert found.maybe == Inner(steps=5) and found.by_name == {"z": Inner(steps=7)}


def test_lists_all_problems_at_once_with_their_paths():
    text = problems_of(
        {"nmae": "n", "inner": {"lr": "fast", "stepz": 1}, "pair": [1], "by_name": {"z": {"steps": True}}}
    )
    assert text.splitlines()[0] == "x.yaml:"
    for line in (
        "nmae: unknown key (did you mean 'name'?)",
        "name: missing",
        "inner.lr: expected float, got 'fast'",
        "inner.stepz: unknown key (did you mean 'steps'?)",
        "pair: expected 2 values, got [1]",
        "by_name.z.steps: expected int, got True",
    ):
        assert f"  {line}" in text.splitlines()


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"on": 1}, "on: expected bool, got 1"),
        ({"on": "yes"}, "on: expected bool, got 'yes'"),
        ({"kind": True}, "kind: expected 'a' or 'b' or 1, got True"),
        ({"kind": "c"}, "kind: expected 'a' or 'b' or 1, got 'c'"),
        ({"scale": "atuo"}, "scale: expected int or 'auto', got 'atuo'"),
        ({"scale": 2.5}, "scale: expected int or 'auto', got 2.5"),
        ({"inner": 3}, "inner: expected a group of settings, got 3"),
        ({"inner": {"steps": 1.0}}, "inner.steps: expected int, got 1.0"),
        ({"inner": {"steps": True}}, "inner.steps: expected int, got True"),
        ({"inner": {"lr": True}}, "inner.lr: expected float, got True"),
        ({"inner": {"lr": float("nan")}}, "inner.lr: expected float, got nan"),
        ({"inner": {"lr": float("inf")}}, "inner.lr: expected float, got inf"),
        ({"inner": {"lr": 10**400}}, "inner.lr: expected float, got 1000"),
        ({"inner": {"steps": -1}}, "inner: steps -1 is negative"),
        ({"maybe": {"stepz": 1}}, "maybe.stepz: unknown key"),
        ({"rate": "1/0"}, "rate: expected Fraction, got '1/0'"),
        ({"rate": "1e999999999"}, "rate: expected Fraction"),
        ({"many": "abc"}, "many: expected a list, got 'abc'"),
        ({"by_name": [1]}, "by_name: expected a mapping, got [1]"),
        ({"path": 3}, "path: expected Path, got 3"),
        ({"name": 3}, "name: expected str, got 3"),
        ({"qqq": 3}, "qqq: unknown key (known: name, on,"),
        ({3: 3}, "3: unknown key"),
        ({"inner": {"steps": 1 << 63}}, "inner.steps: expected int, got 9223372036854775808"),
        ({"inner": {"steps": 16**5000}}, "inner.steps: expected int, got a int that is too large to show"),
        ({"rate": 16**5000}, "rate: expected Fraction, got a int that is too large to show"),
        ({"name": ["x" * 1000]}, f"name: expected str, got ['{'x' * 198}…"),
        ({"by_name": {7: 1}}, "by_name: name 7 is not text: put it in quotes"),
        ({"path": "a\0b"}, r"path: expected Path, got 'a\x00b'"),
        ({"path": "\ud800"}, r"path: expected Path, got '\ud800'"),
    ],
)
def test_refuses_by_name(values, problem):
    assert problem in problems_of({"name": "n"} | values)


def test_tells_how_to_write_a_number_that_yaml_reads_as_text(tmp_path):
    (tmp_path / "c.yaml").write_text("lr: 1e-4\n")
    with pytest.raises(
        ConfigError, match=r"lr: expected float \(YAML reads 1e-4 as text: write 1.0e-4\), got"
    ):
        load_config(Inner, tmp_path / "c.yaml")
    assert "write 1.5e+3" in problems_of({"lr": "1.5e3"}, Inner)
    assert "without quotes" in problems_of({"steps": "12"}, Inner)
    (tmp_path / "c.yaml").write_text("lr: 1.0e-4\n")
    assert load_config(Inner, tmp_path / "c.yaml").lr == 1e-4


def test_an_empty_file_is_all_defaults(tmp_path):
    (tmp_path / "c.yaml").write_text("# nothing\n")
    assert load_config(Inner, tmp_path / "c.yaml") == Inner()


def test_extends_a_chain_of_files_relative_to_each(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "base.yaml").write_text("name: base\ninner: {lr: 0.5, steps: 1}\nmany: [x, y]\n")
    (tmp_path / "sub/middle.yaml").write_text("extends: ../base.yaml\ninner: {steps: 2}\n")
    (tmp_path / "sub/top.yaml").write_text("extends: middle.yaml\nmany: [z]\n")
    found = load_config(Outer, tmp_path / "sub/top.yaml", ["inner.lr=0.25"])
    assert found == Outer(name="base", inner=Inner(lr=0.25, steps=2), many=("z",))


def test_refuses_extends_in_a_circle_or_of_no_file(tmp_path):
    (tmp_path / "a.yaml").write_text("extends: b.yaml\n")
    (tmp_path / "b.yaml").write_text("extends: a.yaml\n")
    with pytest.raises(ConfigError, match="in a circle"):
        load_config(Inner, tmp_path / "a.yaml")
    (tmp_path / "a.yaml").write_text("extends: gone.yaml\n")
    with pytest.raises(ConfigError, match=r"gone.yaml: no such file"):
        load_config(Inner, tmp_path / "a.yaml")
    (tmp_path / "a.yaml").write_text("extends: [b.yaml]\n")
    with pytest.raises(ConfigError, match="expected a file name"):
        load_config(Inner, tmp_path / "a.yaml")


def test_overrides_are_typed_and_checked():
    found = from_overrides(
        Outer, ["name=n", "inner.steps=7", "on=false", "pair=[5, 6]", "maybe.lr=2", "path=null"]
    )
    assert found == Outer(name="n", inner=Inner(steps=7), on=False, pair=(5, 6.0), maybe=Inner(lr=2.0))
    with pytest.raises(ConfigError, match=r"inner.steps: expected int, got 1.5"):
        from_overrides(Outer, ["name=n", "inner.steps=1.5"])
    with pytest.raises(ConfigError, match=r"inner.stps: unknown key \(did you mean 'steps'\?\)"):
        from_overrides(Outer, ["name=n", "inner.stps=1"])


@pytest.mark.parametrize("override", ["name", "=1", "name=[1", "name=1\nx: 2", "name=a: b"])
def test_refuses_malformed_overrides(override):
    with pytest.raises(ConfigError, match="override"):
        from_overrides(Outer, [override])


def test_refuses_an_override_below_a_value():
    with pytest.raises(ConfigError, match="name is a value, not a group"):
        from_overrides(Outer, ["name=n", "name.x=1"])


@given(st.text(max_size=20))
def test_texts_come_back_exactly(value):
    assert build(Outer, yaml.safe_load(dump_yaml(to_plain(Outer(name=value)))), "x") == Outer(name=value)


MANIFESTS = sorted(path.stem for path in (REPOSITORY / "data_manifests").glob("*.yaml"))
CONFIGS = sorted((REPOSITORY / "configs").glob("*.yaml"))


@pytest.mark.parametrize(
    "value",
    [
        TrainConfig(store=Path("s"), init=Path("w.pth"), voxels="k32", validate_crop=None),
        EvaluateConfig(tile=None, overlap=0),
        SceneConfig(),
        VideoConfig(fps=Fraction(30000, 1001), split="val"),
        ClipConfig(crop=96),
        SpikeFormat(height=360, width=416, rate_hz=Fraction(20000), valid_columns=(8, 408)),
        *(read_manifest(name) for name in MANIFESTS),
    ],
    ids=lambda value: getattr(value, "name", type(value).__name__),
)
def test_every_config_comes_back_from_its_yaml(value, tmp_path):
    (tmp_path / "c.yaml").write_text(dump_yaml(to_plain(value)))
    assert load_config(type(value), tmp_path / "c.yaml") == value
    assert build(type(value), to_plain(value), "plain") == value


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_preset_loads_once_it_has_a_store_and_weights(path):
    found = load_config(TrainConfig, path, ["store=x", "init=w"])
    assert dataclasses.replace(found, store=Path("y")) != found


@pytest.mark.parametrize("name", MANIFESTS)
def test_every_shipped_manifest_loads_under_its_own_name(name):
    assert isinstance(read_manifest(name), Manifest)
    assert read_manifest(name).splits


def test_there_are_presets_and_manifests():
    assert {"tiny", "base", "vrt_gopro", "rgb_only"} <= {path.stem for path in CONFIGS}
    assert {"gopro_spike", "x4k1000fps", "unified", "simulated", "gopro_pair", "sreds_pairs"} <= set(
        MANIFESTS
    )


def test_a_group_given_in_part_keeps_the_other_defaults_of_that_group():
    """`threshold` alone must not switch off the noise that a rig's camera has unless it is told otherwise."""
    config = from_overrides(SceneConfig, ["rig.camera.threshold=4", "rig.scale=2"])
    usual = RigConfig().camera
    assert usual.shot_noise > 0
    assert config.rig == RigConfig(scale=2, camera=dataclasses.replace(usual, threshold=4.0))
    assert from_overrides(SceneConfig, ["rig.camera={}"]).rig.camera == usual


def test_lists_some_of_very_many_problems():
    problems = problems_of({f"key{k}": 1 for k in range(9000)} | {"k" * 900: [[[]]]})
    assert (
        problems.count("unknown key") == 50 and problems.endswith("and 8952 more") and len(problems) < 20_000
    )
