import weakref

import numpy as np
import pytest
import torch

from model.parallel import Parallel
from model.training.memory import DeviceUse, attempt, device_use

CPU = Parallel(device=torch.device("cpu"))


def test_work_that_fits_is_handed_on() -> None:
    assert attempt(lambda: 7, CPU) == (7, None)


def test_a_shortage_is_told_when_nothing_holds_the_tensors_any_more() -> None:
    held: list[weakref.ref[torch.Tensor]] = []

    def work() -> None:
        activations = torch.zeros(3)
        held.append(weakref.ref(activations))
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3.50 GiB. GPU 0 has …\nmore")

    result, shortage = attempt(work, CPU)
    assert result is None and shortage and shortage.problem == "Tried to allocate 3.50 GiB"
    assert shortage.use is None and held[0]() is None


@pytest.mark.parametrize(
    "work",
    [
        lambda: torch.empty(1 << 60, dtype=torch.uint8),
        lambda: np.empty(1 << 60, np.uint8),
        lambda: bytearray(1 << 62),
    ],
    ids=["torch", "numpy", "python"],
)
def test_real_shortages_of_the_cpu_are_recognised(work: object) -> None:
    _, shortage = attempt(work, CPU)  # type: ignore[arg-type]
    assert shortage and shortage.problem


def test_other_errors_are_raised() -> None:
    def work() -> None:
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes"):
        attempt(work, CPU)


def test_what_is_held_elsewhere_is_the_rest() -> None:
    use = DeviceUse(total=80, free=10, reserved=60, allocated=50)
    assert use.elsewhere == 10
    assert device_use(torch.device("cpu")) is None
