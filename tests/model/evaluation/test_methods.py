"""Names that are never a user's."""

from model.evaluation.methods import BLURRY, FIXED, RESTORED, SHARP, SPIKE_ONLY, SPIKES


def test_each_fixed_name_is_a_name_of_its_own() -> None:
    assert set(FIXED) == {RESTORED, BLURRY, SPIKE_ONLY, SHARP, SPIKES} and len(FIXED) == 5
