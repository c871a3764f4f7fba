import pytest
import torch

from model.planning.device import device_of, free_bytes
from pipeline.machine import Memory


def test_a_cpu_has_what_its_control_group_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    main = Memory(total=64 << 30, available=5 << 30, limit=8 << 30)
    monkeypatch.setattr("model.planning.device.memory", lambda: main)
    device = device_of("cpu")
    assert (device.kind, device.total_bytes) == ("cpu", 8 << 30) and device.name.startswith("CPU, ")
    assert free_bytes(torch.device("cpu")) == 5 << 30


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_has_a_name_and_memory() -> None:
    device = device_of("auto")
    assert device.kind == "cuda" and device.name == torch.cuda.get_device_name()
    assert 0 < free_bytes(torch.device("cuda")) < device.total_bytes
