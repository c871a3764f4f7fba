"""What a sweep asks for."""

import pytest

from pipeline.errors import ConfigError
from pipeline.simulation.sweep import SweepPoint, sweep_points


@pytest.mark.parametrize("text", ["threshold=1,2.5", "rig.camera.threshold=1,2.5"])
def test_every_value_is_a_data_set(text):
    assert sweep_points(text) == [
        SweepPoint(folder="threshold_1", override="rig.camera.threshold=1"),
        SweepPoint(folder="threshold_2.5", override="rig.camera.threshold=2.5"),
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("threshold", "expected a setting"),
        ("threshold=", "expected a setting"),
        ("threshold=1,,2", "expected a setting"),
        ("threshold=../../x", "expected a setting"),
        ("treshold=1,2", "did you mean threshold"),
        ("maps=a,b", "has no maps"),
        ("threshold=1,2,1", "given twice"),
    ],
)
def test_refuses_by_name(text, problem):
    with pytest.raises(ConfigError) as caught:
        sweep_points(text)
    assert problem in str(caught.value)
