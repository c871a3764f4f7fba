import pytest
import torch

if not torch.cuda.is_available():
    pytest.skip("no CUDA device", allow_module_level=True)

from model.checkup import check_triton
from model.triton_probe import doubled


def test_a_kernel_is_compiled_and_right() -> None:
    values = torch.arange(77.0, device="cuda")
    assert torch.equal(doubled(values), 2 * values)
    assert next(check_triton()).status == "ok"
