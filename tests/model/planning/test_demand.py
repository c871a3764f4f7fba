import pytest

from model.cost import Activations, Piece
from model.planning.demand import Demand, Setting
from model.planning.survey import ClipNeeds
from pipeline.clips import ClipConfig

MB = 10**6


def needs(
    crop: int = 64, clips: int = 8, stages: tuple[int, ...] = (100, 60), between: int = 20
) -> ClipNeeds:
    """Megabytes of the pieces of stages 1, 2, … of one clip; a piece of 10 MB takes one FLOP."""
    pieces = tuple(
        Piece(name=f"stage{number}.a", flops=size // 10, saved_bytes=size * MB)
        for number, size in enumerate(stages, 1)
    )
    activations = Activations(pieces=pieces, between_bytes={"": between * MB})
    return ClipNeeds(clip=ClipConfig(crop=crop), clips=clips, activations=activations, forward_flops=20)


def demand(*some: ClipNeeds, idle: int = 0) -> Demand:
    return Demand(
        needs=some or (needs(),), parameters=5 * MB, trainable=5 * MB, averaged=True, idle_bytes=idle
    )


def test_counts_weights_gradients_moments_averages_and_activations() -> None:
    """5e6 parameters, five copies of 4 bytes: 100 MB; 180 MB of activations for a clip, times 1.3."""
    one_clip = Setting(batches=8, crop=64)
    assert demand(idle=7 * MB).bytes(one_clip) == 107 * MB + 234 * MB
    assert demand().bytes(Setting(batches=2, crop=64)) == 100 * MB + 4 * 234 * MB
    assert demand().bytes(Setting(batches=8, crop=32)) == 100 * MB + 234 * MB // 4
    plain = Demand(needs=(needs(),), parameters=5 * MB, trainable=5 * MB, averaged=False)
    assert plain.bytes(one_clip) == 80 * MB + 234 * MB
    tuned = Demand(needs=(needs(),), parameters=5 * MB, trainable=MB, averaged=True)
    assert tuned.bytes(one_clip) == 20 * MB + 16 * MB + 234 * MB


def test_a_measurement_corrects_what_is_there_in_any_case() -> None:
    one, four = Setting(batches=8, crop=64), Setting(batches=2, crop=64)
    after = demand().after(one, 500 * MB)
    assert after.bytes(one) == 500 * MB
    assert after.bytes(four) == 500 * MB + 3 * 234 * MB


def test_two_measurements_tell_what_a_clip_takes() -> None:
    one, two, four = (Setting(batches=batches, crop=64) for batches in (8, 4, 2))
    after = demand().after(one, 500 * MB).after(two, 700 * MB)  # 200 for 180 MB of activations
    assert after.bytes(four) == pytest.approx(1100 * MB, rel=1e-6)


@pytest.mark.parametrize(("second", "growth"), [(490, 1.0), (5000, 2.0)])
def test_a_growth_that_cannot_be_is_not_believed(second: int, growth: float) -> None:
    one, two = Setting(batches=8, crop=64), Setting(batches=4, crop=64)
    after = demand().after(one, 500 * MB).after(two, second * MB)
    assert after.bytes(two) - after.bytes(one) == pytest.approx(growth * 180 * MB)


def test_never_foretells_less_than_was_measured() -> None:
    small, large = Setting(batches=8, crop=64), Setting(batches=4, crop=64, checkpoint_stages=(1,))
    after = demand().after(small, 700 * MB).after(large, 650 * MB)
    assert after.bytes(small) >= 700 * MB and after.bytes(large) >= 650 * MB


def test_recomputes_what_costs_least_and_suffices() -> None:
    """Stage 2, whose backward comes first, is there again while all else is kept: recomputing it saves nothing."""
    one = Setting(batches=8, crop=64)
    assert demand().cheapest(one, 334 * MB).checkpoint_stages == ()
    tight = demand().cheapest(one, 300 * MB)
    assert tight.checkpoint_stages == (1,) and demand().bytes(tight) == 256 * MB
    assert demand().extra_flops(tight) == pytest.approx(10 / 60)
    assert demand().cheapest(one, 300 * MB, always=(2,)).checkpoint_stages == (1, 2)
    assert demand().cheapest(one, 255 * MB) is None
    assert demand().cheapest(one, 50 * MB) is None  # less than the weights take


def test_the_largest_of_several_clips_counts() -> None:
    small, large = needs(crop=64, clips=8), needs(crop=128, clips=4, stages=(400, 240), between=80)
    setting = Setting(batches=4, crop=128)
    assert demand(small, large).bytes(setting) == demand(large).bytes(setting)
    assert demand(small, large).bytes(Setting(batches=4, crop=64)) == demand(small).bytes(setting)
