"""How strongly each part of a network learns, looked at every so many steps."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn


class LayerStats(NamedTuple):
    """One step, by part of the network (`stage1`, `fusions`); a value for each parameter that has a gradient.

    Attributes:
        grad_norms: norm of the gradient before clipping.
        updates: norm of what AdamW adds to the parameter, without weight decay, over the norm of the parameter.
    """

    grad_norms: Mapping[str, Sequence[float]]
    updates: Mapping[str, Sequence[float]]


class LayerWatch:
    """Looks at gradients and updates in the steps that are due, and costs nothing in the others.

    A step that is due waits for the device once more, to read both. Parameters without a gradient, as those of the
    optical flow while it is frozen, take no part. Where parameters are sharded every process has to look.

    Args:
        network: as the optimizer knows its parameters.
        optimizer: AdamW.
        every: in steps; 0 is never.
        show: told of the steps done and what was seen; may be set later.
    """

    def __init__(
        self,
        network: nn.Module,
        optimizer: torch.optim.Optimizer,
        every: int,
        show: Callable[[int, LayerStats], None] = lambda step, layers: None,
    ) -> None:
        self.network = network
        self.optimizer = optimizer
        self.every = every
        self.show = show
        self._norms: dict[str, Tensor] = {}

    def before_clipping(self, step: int) -> None:
        """Look at the gradients of step `step` (from 0)."""
        if self.every and (step + 1) % self.every == 0:
            self._norms = {
                name: _norm(parameter.grad)
                for name, parameter in self.network.named_parameters()
                if parameter.grad is not None
            }

    def after_update(self, step: int) -> None:
        """Look at what the optimizer did in step `step`, if it is due, and tell."""
        if not self._norms:
            return
        updates = [update for group in self.optimizer.param_groups for update in self._updates(group)]
        update_of = dict(updates)
        parameters = dict(self.network.named_parameters())
        names = [name for name in self._norms if parameters[name] in update_of]
        seen = torch.stack(
            [
                torch.stack([self._norms[name] for name in names]),
                torch.stack([update_of[parameters[name]] for name in names]),
            ]
        ).tolist()
        self._norms = {}
        self.show(step + 1, LayerStats(*(_by_part(names, values) for values in seen)))

    @torch.no_grad()
    def _updates(self, group: Mapping[str, object]) -> list[tuple[nn.Parameter, Tensor]]:
        """Of the parameters of a group that were ever updated: size of the last update over that of the parameter."""
        found = []
        for parameter in group["params"]:
            moments = self.optimizer.state.get(parameter)
            if not moments:
                continue
            steps = moments["step"]
            first, second = (1 - beta**steps for beta in group["betas"])
            update = moments["exp_avg"] / ((moments["exp_avg_sq"] / second).sqrt() + group["eps"])
            found.append((parameter, group["lr"] / first * _norm(update) / _norm(parameter)))
        return found


def _norm(values: Tensor) -> Tensor:
    """Of all of a tensor, float32, even where it is spread over processes."""
    norm = torch.linalg.vector_norm(values, dtype=torch.float32)
    gather = getattr(norm, "full_tensor", None)  # of a DTensor, whose class takes a second to import
    return gather() if gather else norm


def _by_part(names: Sequence[str], values: Sequence[float]) -> dict[str, list[float]]:
    parts: dict[str, list[float]] = defaultdict(list)
    for name, value in zip(names, values, strict=True):
        parts[name.partition(".")[0]].append(value)
    return dict(parts)
