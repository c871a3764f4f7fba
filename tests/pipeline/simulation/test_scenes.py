"""Generated scenes: exact motion, no seams, settings that can be filmed."""

import numpy as np
import pytest

from pipeline.simulation.rig import film
from pipeline.simulation.scenes import Motion, Scene, SceneConfig, Sprite, random_scene
from pipeline.simulation.textures import random_sprite, random_texture

SMALL = SceneConfig(height=48, width=64, train=1, val=0, test=0)


def still(x: float = 0.0, y: float = 0.0, speed: float = 0.0, heading: float = 0.0) -> Motion:
    return Motion(x=x, y=y, speed=speed, heading=heading, turn=1e-9, angle=0.0, spin=0.0)


def only_background(motion: Motion) -> Scene:
    texture = random_texture(np.random.default_rng(0), 256, shapes=40)
    return Scene(height=32, width=40, background=texture, background_motion=motion, sprites=())


def test_motion_has_the_declared_speed_and_turns():
    motion = Motion(x=3.0, y=4.0, speed=12.0, heading=0.5, turn=-0.3, angle=1.0, spin=0.2)
    time = np.array([0.0, 2.0, 2.0001])
    x, y, angle = motion.at(time)
    assert (x[0], y[0], angle[0]) == (3.0, 4.0, 1.0)
    dx, dy = np.diff(x)[1] / 1e-4, np.diff(y)[1] / 1e-4
    assert np.hypot(dx, dy) == pytest.approx(12.0, rel=1e-3)
    assert np.arctan2(dy, dx) == pytest.approx(0.5 - 0.3 * 2.0, abs=1e-3)
    assert angle[1] == pytest.approx(1.4)


def test_one_exposure_moves_the_background_by_its_speed():
    scene = only_background(still(speed=7.0))
    before, after = scene.render(np.array([0.0, 1.0]))
    # the camera looks 7 pixels further right, so the picture moves left
    assert np.allclose(after[:, :, :-7], before[:, :, 7:], atol=1e-5)


def test_sub_frame_motion_is_rendered_not_interpolated():
    """Half a pixel on is half a pixel on: closer to the true shift than the mean of the two ends (a ghost) is."""
    scene = only_background(still(speed=6.0))
    start, middle, end = scene.render(np.array([0.0, 0.5, 1.0]))
    assert np.allclose(middle[:, :, :-3], start[:, :, 3:], atol=1e-5)
    assert np.abs((start + end) / 2 - middle).mean() > 0.02


def test_sharpness_does_not_depend_on_the_fraction_of_a_pixel():
    scene = only_background(still(speed=1.0))
    renders = scene.render(np.arange(4) / 4)
    contrast = [np.abs(np.diff(image, axis=-1)).mean() for image in renders]
    assert max(contrast) / min(contrast) < 1.05


def test_blur_of_steady_motion_is_the_mean_along_the_path():
    """8 spike frames over a motion of 8 pixels: the mean of 8 whole-pixel shifts, at the frames' middles."""
    config = SceneConfig(height=16, width=32, train=1)
    motion = still(x=0.5, speed=8.0)
    texture = np.random.default_rng(0).random((3, 128, 128)).astype(np.float32)
    scene = Scene(height=16, width=32, background=texture, background_motion=motion, sprites=())
    rig = type(config.rig)(num_frames=1, exposure_frames=8, gap_frames=8)
    recorded = film(scene, rig, np.random.default_rng(0))
    # frame i of the exposure looks at x = 0.5 + 8 + i + 0.5 pixels, 2 texels each: whole texels
    columns = 2 * (9 + np.arange(8))[:, None] + np.round(2 * (np.arange(32) - 15.5)).astype(int)
    rows = np.round(2 * (np.arange(16) - 7.5)).astype(int)
    expected = np.mean([texture[:, rows % 128][:, :, line % 128] for line in columns], axis=0)
    assert np.abs(recorded.blurry[0] - expected * 255).max() <= 0.51


def test_an_object_covers_the_background_and_nothing_else():
    sprite = Sprite(random_sprite(np.random.default_rng(3), 128, 16.0), 8.0, still(x=20.0, y=14.0))
    plain = only_background(still(speed=3.0))
    scene = Scene(
        height=32,
        width=40,
        background=plain.background,
        background_motion=plain.background_motion,
        sprites=(sprite,),
    )
    changed = np.abs(scene.render(np.zeros(1)) - plain.render(np.zeros(1)))[0].max(axis=0) > 1e-4
    y, x = np.nonzero(changed)
    assert changed.sum() > 50
    assert np.hypot(x - 20, y - 14).max() < 8 + 2


def test_an_object_that_leaves_comes_back_without_a_jump_in_sight():
    sprite = Sprite(random_sprite(np.random.default_rng(4), 128, 16.0), 8.0, still(x=20.0, y=16.0, speed=1.0))
    background = np.full((3, 128, 128), 0.5, np.float32)
    scene = Scene(height=32, width=40, background=background, background_motion=still(), sprites=(sprite,))
    renders = scene.render(np.arange(0, 80, 0.25))
    visible = np.abs(renders - 0.5).max(axis=(1, 2, 3)) > 0.02
    assert visible[0] and visible[-1] and not visible.all()
    assert np.abs(np.diff(renders, axis=0)).mean(axis=(1, 2, 3)).max() < 0.02


def test_large_objects_show_no_periodic_copies():
    config = SceneConfig(
        height=160, width=160, objects=(1, 1), object_radius=(40.0, 40.0), background_speed=(0, 0)
    )
    scene = random_scene(config, np.random.default_rng(5))
    (sprite,) = scene.sprites
    for angle in (0.0, np.pi / 4, np.pi / 3):
        placed = Motion(x=80.0, y=80.0, speed=0, heading=0, turn=1.0, angle=angle, spin=0)
        black = np.zeros((3, 128, 128), np.float32)
        shown = Scene(
            height=160,
            width=160,
            background=black,
            background_motion=still(),
            sprites=(Sprite(sprite.texture, 40.0, placed),),
        ).render(np.zeros(1))
        y, x = np.nonzero(shown[0].max(axis=0) > 1e-3)
        assert np.hypot(x - 80, y - 80).max() < 42.5


def test_scenes_depend_on_the_generator_alone():
    first, again, other = (random_scene(SMALL, np.random.default_rng(seed)) for seed in (1, 1, 2))
    time = np.array([0.3, 4.7])
    assert np.array_equal(first.render(time), again.render(time))
    assert not np.array_equal(first.render(time), other.render(time))


def test_light_stays_in_range_and_is_worth_deblurring():
    scene = random_scene(SMALL, np.random.default_rng(6))
    recorded = film(scene, SMALL.rig, np.random.default_rng(6))
    light = scene.render(np.linspace(0, 8, 9))
    assert light.dtype == np.float32 and light.shape == (9, 3, 48, 64)
    assert light.min() >= 0 and light.max() <= 1 + 1e-6
    error = ((recorded.blurry.astype(float) - recorded.sharp) ** 2).mean(axis=(1, 2, 3))
    psnr = 10 * np.log10(255**2 / error)
    assert 15 < psnr.mean() < 28
    assert 0.05 < recorded.spikes.mean() < 0.5


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"train": 0, "val": 0, "test": 0}, "nothing to generate"),
        ({"val": -1}, "nothing to generate"),
        ({"object_speed": (9.0, 3.0)}, "object_speed"),
        ({"background_speed": (-1.0, 3.0)}, "background_speed"),
        ({"object_radius": (9.0, 101.0)}, "at most 100"),
        ({"object_spin": -0.1}, "not negative"),
        ({"height": 97, "width": 97}, "whole bytes"),
    ],
)
def test_refuses_scenes_that_cannot_be_filmed(wrong, message):
    with pytest.raises(ValueError, match=message):
        SceneConfig(**wrong)


def test_refuses_a_sprite_larger_than_its_texture():
    with pytest.raises(ValueError, match="does not fit"):
        random_sprite(np.random.default_rng(0), 128, 60.0)
