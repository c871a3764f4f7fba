import dataclasses

import pytest

from model.planning.demand import Demand, Setting
from model.planning.rehearsal import OutOfMemory, Rehearsal, StretchCost
from model.planning.search import Search, Verdict, divisors, smaller_crops
from tests.model.planning.test_demand import MB, needs

COST = StretchCost(step_s=1.0, data_share=0.0)


def rehearsal(peak_bytes: int) -> Rehearsal:
    return Rehearsal(stretches=(COST,), peak_bytes=peak_bytes, start_s=0.0, end_s=0.0, checkpoint_bytes=0)


class Device:
    """Steps that take what is foretold times `growth`, and seconds by the clips of a batch.

    Args:
        seconds: of a step whose batches have so many clips; recomputing makes it a quarter longer.
        memory: beyond which it runs out, in bytes.
    """

    def __init__(self, seconds: dict[int, float], memory: float = 1e12, growth: float = 1.0) -> None:
        self.seconds = seconds
        self.memory = memory
        self.growth = growth
        self.tried: list[Setting] = []

    def __call__(self, setting: Setting) -> tuple[Rehearsal, float] | OutOfMemory:
        self.tried.append(setting)
        peak = round(self.growth * DEMAND.bytes(setting))
        if peak > self.memory:
            return OutOfMemory("tried to allocate")
        factor = 1.25 if setting.checkpoint_stages else 1.0
        return rehearsal(peak), factor * self.seconds[8 // setting.batches]


DEMAND = Demand(needs=(needs(),), parameters=5 * MB, trainable=5 * MB, averaged=True)
FASTER = {1: 8.0, 2: 6.0, 4: 5.0, 8: 4.5}


def search(device: Device, budget: int, **options: object) -> Search:
    return Search(DEMAND, budget, device, **options)


def test_takes_the_largest_batch_where_there_is_room() -> None:
    device = Device(FASTER)
    found = search(device, 10**12)
    assert found.run(8, [64]).setting == Setting(batches=1, crop=64)
    assert [setting.batches for setting in device.tried] == [8, 4, 2, 1]
    assert [one.verdict for one in found.candidates] == ["fits", "fits", "fits", "chosen"]
    assert found.candidates[0].reason == "78% slower"


def test_tries_no_larger_batches_when_they_are_no_faster() -> None:
    device = Device({1: 8.0, 2: 7.99, 4: 1.0, 8: 1.0})
    found = search(device, 10**12)
    chosen = found.run(8, [64])
    assert chosen.setting.batches == 8  # about as fast as 4, and smaller
    assert len(device.tried) == 2
    assert [one.verdict for one in found.candidates][2:] == [Verdict.NOT_TRIED] * 2
    assert found.candidates[1].reason == "no faster, and larger"


def test_weighs_a_larger_batch_against_recomputing() -> None:
    """Batches of 4 fit only with stage 1 recomputed: 6.25 s, where batches of 2 take 6."""
    budget = DEMAND.bytes(Setting(batches=4, crop=64)) + MB
    device = Device(FASTER)
    found = search(device, budget)
    assert found.run(8, [64]).setting == Setting(batches=4, crop=64)
    assert all(DEMAND.bytes(setting) <= budget for setting in device.tried)
    recomputed = Setting(batches=2, crop=64, checkpoint_stages=(1,))
    device = Device(FASTER | {4: 4.0})  # 5 s with recomputation
    assert search(device, DEMAND.bytes(recomputed)).run(8, [64]).setting == recomputed


def test_never_tries_what_is_foretold_not_to_fit() -> None:
    device = Device(FASTER)
    found = search(device, DEMAND.bytes(Setting(batches=8, crop=64)))
    assert found.run(8, [64]).setting.batches == 8
    assert max(map(DEMAND.bytes, device.tried)) <= found.budget_bytes
    assert found.candidates[-1].verdict == Verdict.NOT_TRIED


def test_recomputes_more_after_a_step_that_took_more_than_foretold() -> None:
    budget = DEMAND.bytes(Setting(batches=8, crop=64))
    device = Device(FASTER, growth=1.2)
    found = search(device, budget)
    assert found.run(8, [64]).setting == Setting(batches=8, crop=64, checkpoint_stages=(1,))
    assert found.candidates[0].verdict == Verdict.TOO_LARGE
    assert found.candidates[0].reason == "above the budget"


def test_goes_on_after_running_out_of_memory() -> None:
    budget = DEMAND.bytes(Setting(batches=8, crop=64))
    device = Device(FASTER, memory=0.9 * budget)
    found = search(device, budget, dares=True)
    assert found.run(8, [64]).setting == Setting(batches=8, crop=64, checkpoint_stages=(1,))
    assert (found.candidates[0].verdict, found.candidates[0].reason) == ("too large", "tried to allocate")
    assert found.candidates[0].step_s is None


def test_takes_a_smaller_crop_only_when_nothing_else_fits() -> None:
    budget = DEMAND.bytes(Setting(batches=8, crop=32)) + MB
    device = Device(FASTER)
    found = search(device, budget)
    assert found.run(8, [64, 48, 32]).setting.crop == 32
    assert {setting.crop for setting in device.tried} == {32}
    daring = Device(FASTER, memory=budget)
    assert search(daring, budget, dares=True).run(8, [64, 48, 32]).setting.crop == 32
    assert daring.tried[0].crop == 64  # nothing was measured yet, and running out is survived


def test_finds_nothing_where_nothing_fits() -> None:
    found = search(Device(FASTER), MB)
    assert found.run(8, [64, 32]) is None
    assert {one.verdict for one in found.candidates} == {Verdict.NOT_TRIED}


def test_the_next_best_is_taken_when_the_best_fails_after_all() -> None:
    found = search(Device(FASTER), 10**12)
    best = found.run(8, [64])
    second = found.reject(best, "above the budget when checked")
    assert second.setting.batches == 2 and second.verdict == Verdict.CHOSEN
    assert [one.verdict for one in found.candidates] == ["fits", "fits", "chosen", "too large"]
    alone = search(Device(FASTER), 10**12)
    assert alone.reject(alone.run(1, [64]), "") is None


def test_stages_that_are_named_are_recomputed_in_any_case() -> None:
    assert search(Device(FASTER), 10**12, always=(3,)).run(1, [64]).setting.checkpoint_stages == (3,)


def test_foretells_without_trying() -> None:
    device = Device(FASTER)
    found = search(device, DEMAND.bytes(Setting(batches=4, crop=64)))
    found.foretell(8, 64)
    assert not device.tried
    assert [one.reason for one in found.candidates] == ["should fit"] * 2 + ["should not fit"] * 2


def test_candidates_do_not_change() -> None:
    found = search(Device(FASTER), 10**12).run(1, [64])
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.reason = ""


def test_divides() -> None:
    assert divisors(12) == [1, 2, 3, 4, 6, 12]


@pytest.mark.parametrize(
    ("crop", "scale", "crops"),
    [
        (256, 1, [256, 192, 128, 96, 64]),
        (96, 4, [96, 72, 48, 32, 24]),
        (60, 3, [60, 45, 30, 21]),
        (16, 1, [16]),
    ],
)
def test_smaller_crops_are_whole_spike_pixels(crop: int, scale: int, crops: list[int]) -> None:
    assert list(smaller_crops(crop, scale)) == crops
    assert all(one % scale == 0 for one in crops)
