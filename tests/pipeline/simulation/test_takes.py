"""The generated sequences of a simulation: as many as asked for, each decided by its random numbers alone."""

import dataclasses

import numpy as np
import pytest

from pipeline.simulation.rig import RigConfig, film
from pipeline.simulation.scenes import SceneConfig, random_scene
from pipeline.simulation.takes import SceneTake, scene_takes

CONFIG = SceneConfig(height=32, width=48, train=2, val=0, test=1, objects=(1, 2))
INSTANTS = np.array([0.0, 0.4, 1.7])


def test_every_split_has_its_sequences_under_names_of_their_own():
    takes = scene_takes(CONFIG)
    assert [(take.split, take.sequence) for take in takes] == [
        ("train", "train_0000"),
        ("train", "train_0001"),
        ("test", "test_0000"),
    ]


def test_a_scene_is_that_of_its_config_and_its_random_numbers():
    take = scene_takes(CONFIG)[1]
    found = take.footage(np.random.default_rng(5)).render(INSTANTS)
    wanted = random_scene(CONFIG, np.random.default_rng(5)).render(INSTANTS)
    np.testing.assert_array_equal(found, wanted)
    assert found.shape == (3, 3, 32, 48)
    other = take.footage(np.random.default_rng(6)).render(INSTANTS)
    assert np.abs(other - found).mean() > 0.02


def test_takes_that_share_random_numbers_one_after_the_other_differ():
    rng = np.random.default_rng(0)
    first, second = (take.footage(rng).render(INSTANTS) for take in scene_takes(CONFIG)[:2])
    assert np.abs(first - second).mean() > 0.02


def test_a_take_can_be_filmed():
    rig = RigConfig(num_frames=2, exposure_frames=8, gap_frames=2)
    recorded = film(scene_takes(CONFIG)[0].footage(np.random.default_rng(0)), rig, np.random.default_rng(1))
    assert recorded.blurry.shape == (2, 3, 32, 48) and recorded.spikes.shape == (22, 32, 48)


def test_a_take_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        SceneTake("train", "a", CONFIG).sequence = "b"
