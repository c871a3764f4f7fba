"""Where numbers stop being finite in a step: it is done once more, without an update, and looked at part by part."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from model.training.learner import Learner
from pipeline.clips import Sample
from pipeline.errors import TrainingError

MOST_LISTED = 8
"""Modules, gradients and weights that are listed, each; what follows the first ones is their consequence."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """A tensor that is not finite.

    Attributes:
        name: dotted, as in the state dict; of a module for what it gives.
        elements: how many it has.
        nans, infs: how many of them are.
        low, high: of the finite ones; None if there are none.
        arose_here: of a module: whether all that it was given was finite.
    """

    name: str
    elements: int
    nans: int
    infs: int
    low: float | None
    high: float | None
    arose_here: bool | None = None

    def __str__(self) -> str:
        bad = " and ".join(f"{n} {what}" for n, what in ((self.nans, "NaN"), (self.infs, "Inf")) if n)
        rest = "nothing finite" if self.low is None else f"the rest in [{self.low:.3g}, {self.high:.3g}]"
        origin = {None: "", True: "; its inputs are finite", False: "; so are its inputs"}[self.arose_here]
        return f"{self.name}: {bad} of {self.elements} values, {rest}{origin}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Diagnosis:
    """What was not finite in one process's part of a step; the first of each kind, in the order of the computation.

    Attributes:
        step: from 0.
        weights: parameters, buffers, averaged weights and optimizer moments.
        inputs: of the network, and the sharp frames: "0.voxels" is in the first batch.
        modules: outputs in the forward, by the name of the module.
        loss: terms of it: "0.total".
        module_gradients: gradients with regard to the outputs of modules, from the loss back to the input.
        gradients: of parameters.
    """

    step: int
    weights: tuple[Finding, ...]
    inputs: tuple[Finding, ...]
    modules: tuple[Finding, ...]
    loss: tuple[Finding, ...]
    module_gradients: tuple[Finding, ...]
    gradients: tuple[Finding, ...]

    @property
    def is_finite(self) -> bool:
        """Whether nothing was found."""
        return not any((*self._groups().values(),))

    def lines(self) -> list[str]:
        """The findings in the order of cause and effect, a few lines each kind."""
        if self.is_finite:
            return ["done once more by this process alone, the step is finite"]
        return [
            line
            for kind, findings in self._groups().items()
            for line in (f"{kind}:", *(f"  {finding}" for finding in findings[:3]))
            if findings
        ]

    def to_json(self) -> dict[str, Any]:
        """All of it, as plain values."""
        return asdict(self)

    def _groups(self) -> dict[str, tuple[Finding, ...]]:
        return {
            "weights that are not finite": self.weights,
            "inputs that are not finite": self.inputs,
            "first modules whose output is not finite": self.modules,
            "loss terms that are not finite": self.loss,
            "first modules with a gradient that is not finite": self.module_gradients,
            "parameters whose gradient is not finite": self.gradients,
        }


def diagnose(learner: Learner, step: int, batches: Sequence[Sample]) -> Diagnosis:
    """Do step `step` (from 0) once more on these batches, with the same random numbers, and look at all tensors.

    Needs as much memory as the step. Weights, moments and average stay as they are; gradients are left empty.
    """
    weights = find(_state_of(learner))
    with _Watch(learner) as watch:
        terms = learner.repeat(step, batches)
        losses = {f"{i}.{name}": x for i, term in enumerate(terms) for name, x in term._asdict().items()}
        gradients = {name: p.grad for name, p in learner.network.named_parameters() if p.grad is not None}
        found = find(losses), find(gradients)
    learner.optimizer.zero_grad(set_to_none=True)
    return Diagnosis(
        step=step,
        weights=weights,
        inputs=tuple(watch.inputs.values()),
        modules=tuple(watch.outputs.values()),
        loss=found[0],
        module_gradients=tuple(watch.gradients.values()),
        gradients=found[1],
    )


def find(tensors: Mapping[str, Tensor], most: int = MOST_LISTED) -> tuple[Finding, ...]:
    """The tensors that are not finite, the first `most` of them."""
    return tuple(look(name, tensors[name]) for name in non_finite(tensors)[:most])


def non_finite(tensors: Mapping[str, Tensor]) -> list[str]:
    """Names of the floating point tensors that are not finite, after one wait for their device."""
    names = [name for name, tensor in tensors.items() if tensor.is_floating_point() and tensor.numel()]
    if not names:
        return []
    # The largest absolute value is NaN or Inf exactly if one of the values is.
    largest = torch._foreach_norm([tensors[name].detach() for name in names], float("inf"))
    finite = torch.stack([torch.isfinite(value).to(largest[0].device) for value in largest]).tolist()
    return [name for name, good in zip(names, finite, strict=True) if not good]


def require_finite(tensors: Mapping[str, Tensor], step: int) -> None:
    """Refuse a state to save that is not finite.

    Raises:
        TrainingError: naming the tensors.
    """
    if not (bad := non_finite(tensors)):
        return
    findings = "".join(f"\n  {look(name, tensors[name])}" for name in bad[:MOST_LISTED])
    more = f"\n  and {len(bad) - MOST_LISTED} more" * (len(bad) > MOST_LISTED)
    raise TrainingError(
        f"after step {step}, {len(bad)} tensors are not finite, and no checkpoint was made of them:{findings}{more}",
        "go on from the checkpoint before with --resume; if it comes again at this step, begin a new run from it "
        "with init=CHECKPOINT and a lower optim.lr",
    )


def look(name: str, tensor: Tensor, arose_here: bool | None = None) -> Finding:
    """Count what is not finite in a tensor."""
    tensor = tensor.detach()
    finite = tensor[torch.isfinite(tensor)]
    nans = int(torch.isnan(tensor).sum())
    return Finding(
        name=name,
        elements=tensor.numel(),
        nans=nans,
        infs=tensor.numel() - finite.numel() - nans,
        low=float(finite.min()) if finite.numel() else None,
        high=float(finite.max()) if finite.numel() else None,
        arose_here=arose_here,
    )


class _Watch(ExitStack):
    """Looks at what goes in and out of all modules of a learner's network, and of its loss, while it is entered."""

    def __init__(self, learner: Learner) -> None:
        super().__init__()
        self.inputs: dict[str, Finding] = {}
        self.outputs: dict[str, Finding] = {}
        self.gradients: dict[str, Finding] = {}
        self._batch = -1
        network, loss = learner.network, learner.loss
        self._enter(network.register_forward_pre_hook(self._begin))
        self._enter(loss.register_forward_pre_hook(partial(self._given, ("restored", "sharp"))))
        for name, module in network.named_modules():
            self._enter(module.register_forward_hook(partial(self._gave, name or type(network).__name__)))

    def _enter(self, handle: Any) -> None:
        self.callback(handle.remove)

    def _begin(self, module: nn.Module, given: tuple[Any, ...]) -> None:
        self._batch += 1
        self._given(("blurry", "voxels", "instants"), module, given)

    def _given(self, names: Iterable[str], module: nn.Module, given: tuple[Any, ...]) -> None:
        for name, tensor in zip(names, given, strict=False):
            if name != "restored" and tensor is not None and not is_finite(tensor):
                self._note(self.inputs, f"{self._batch}.{name}", tensor)

    def _gave(self, name: str, module: nn.Module, given: tuple[Any, ...], gave: Any) -> None:
        for tensor in _floats(gave):
            if tensor.requires_grad:  # in a stage that is recomputed, not before its backward
                tensor.register_hook(partial(self._gradient, name))
            if name not in self.outputs and not is_finite(tensor):
                self._note(self.outputs, name, tensor, all(map(is_finite, _floats(given))))

    def _gradient(self, name: str, gradient: Tensor) -> None:
        if name not in self.gradients and not is_finite(gradient):
            self._note(self.gradients, name, gradient)

    def _note(
        self, where: dict[str, Finding], name: str, tensor: Tensor, arose_here: bool | None = None
    ) -> None:
        if len(where) < MOST_LISTED:
            where[name] = look(name, tensor, arose_here)


def is_finite(tensor: Tensor) -> bool:
    """Whether all values are; waits for the device."""
    # Detached: what is computed for a look must not be counted among what a recomputed stage keeps for backward.
    return bool(torch.isfinite(tensor.detach()).all())


def _floats(values: Any) -> list[Tensor]:
    return [x for x in tree_leaves(values) if isinstance(x, Tensor) and x.is_floating_point()]


def _state_of(learner: Learner) -> dict[str, Tensor]:
    buffers = {f"model.{name}": value for name, value in learner.network.named_buffers()}
    return {**learner.tensors(), **buffers}
