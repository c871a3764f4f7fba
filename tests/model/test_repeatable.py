import torch

from model.repeatable import inference, repeatable


def test_deterministic_kernels_are_chosen_inside_only() -> None:
    before = torch.backends.cudnn.benchmark
    with repeatable(True):
        assert torch.are_deterministic_algorithms_enabled()
        assert torch.is_deterministic_algorithms_warn_only_enabled()  # some kernels have no such version
        assert not torch.backends.cudnn.benchmark
    assert not torch.are_deterministic_algorithms_enabled() and torch.backends.cudnn.benchmark == before


def test_nothing_changes_where_it_is_not_wanted() -> None:
    with repeatable(False):
        assert not torch.are_deterministic_algorithms_enabled()


def test_inference_has_no_gradients_and_full_precision() -> None:
    before = torch.backends.cudnn.allow_tf32
    with inference():
        assert torch.is_inference_mode_enabled() and not torch.backends.cudnn.allow_tf32
        assert torch.backends.cudnn.deterministic
    assert not torch.is_inference_mode_enabled() and torch.backends.cudnn.allow_tf32 == before
