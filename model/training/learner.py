"""One optimisation step, and all the state that it changes."""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from model.losses import CombinedLoss, LossTerms
from model.normalize import VoxelNormalizer, to_unit
from model.parallel import Parallel
from model.sharding import load_whole, rows_like, shard, skeleton, whole, whole_network, whole_on_main
from model.training.ema import WeightAverage
from model.training.layer_watch import LayerWatch
from model.training.optim import OptimConfig, build_optimizer, freeze, frozen_groups
from model.training.schedules import learning_rate
from pipeline.clips import Sample
from pipeline.errors import CheckpointError

_MOMENTS = ("exp_avg", "exp_avg_sq")


class StepResult(NamedTuple):
    """What one step did. Losses are means over the micro-batches and processes.

    Attributes:
        applied: whether the weights changed; they do not when the loss or the gradient is not finite.
        overflow: the step was left out because fp16 gradients overflowed; the scaler has halved its scale.
        stop: whether any process was asked to stop.
    """

    loss: float
    charbonnier: float
    perceptual: float
    grad_norm: float
    lr: float
    applied: bool
    overflow: bool
    stop: bool


class Learner:
    """A network, its optimizer, gradient scaler and averaged weights.

    Random numbers of a batch (stochastic depth) depend on (seed, step, its number among the batches of the step, over
    all processes) only, like the data: nothing of a generator needs saving for a resumed run to repeat an uninterrupted
    one, and two processes that take a batch each draw what one draws that takes both in turn.

    A step waits for the device once, at its end, and until then only queues work for it. An error before it changes
    anything leaves the state as it was, which `is_whole` tells.

    Args:
        network: on its device; called as network(blurry, voxels). Parameters without `requires_grad` stay as they
            are: for them no gradient, no moments and no average is kept.
        loss: on the same device.
        normalizer: for the voxels, on the same device; None for a network that takes no voxels.
        config: optimizer and schedule.
        place: device, precision and processes.
        steps: length of the schedule.
        seed: of the random numbers.
        takes_instants: the network is also given the instants to restore, network(blurry, voxels, instants).

    Attributes:
        watch: looks at the gradients and updates of some steps, if set.
        phase: gives the context in which each phase of a step is done, by its name, for a profile.
    """

    def __init__(
        self,
        network: nn.Module,
        loss: CombinedLoss,
        normalizer: VoxelNormalizer | None,
        config: OptimConfig,
        place: Parallel,
        *,
        steps: int,
        seed: int,
        takes_instants: bool = False,
    ) -> None:
        self.network = network
        self.takes_instants = takes_instants
        self.loss = loss
        self.normalizer = normalizer
        self.config = config
        self.place = place
        self.steps = steps
        self.seed = seed
        self.average = WeightAverage(network, config.ema_decay) if config.ema_decay else None
        self._skeleton: nn.Module | None = None
        if place.shards:
            self._skeleton = skeleton(network)
            for each in (network, *([self.average.network] if self.average else [])):
                shard(each, place.device)
        self.phase: Callable[[str], contextlib.AbstractContextManager[object]] = contextlib.nullcontext
        self.optimizer = build_optimizer(network, config)
        self.scaler = place.scaler()
        self.watch: LayerWatch | None = None
        self._parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        self._learning = {name: p for name, p in network.named_parameters() if p.requires_grad}
        self.is_whole = True
        self._forward: Callable[..., Tensor] | None = None
        self._frozen: tuple[bool, ...] = ()

    @property
    def best_network(self) -> nn.Module:
        """The network to judge: the averaged one where there is one; a whole copy of it where it is sharded.

        All processes must ask for it at the same time.
        """
        best = self.average.network if self.average else self.network
        return whole_network(self._skeleton, best, self.place.device) if self._skeleton else best

    def restore(self, network: nn.Module, sample: Sample) -> Tensor:
        """Run `network` on a batch of bytes, in evaluation mode and without gradients; float32 (B, T, 3, H, W)."""
        training = network.training
        network.eval()
        try:
            with torch.no_grad(), self.place.autocast(), self.place.eager():
                return network(*self._inputs(self._to_device(sample))).float()
        finally:
            network.train(training)

    def step(
        self, step: int, batches: Sequence[Sample], stop: Callable[[], bool] = lambda: False
    ) -> StepResult:
        """Do step `step` (from 0) with the gradients of all `batches` together.

        Args:
            stop: asked once; processes agree on the answer.
        """
        forward = self._enter_phase(step)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(step, self.config, self.steps, group["multiplier"])
        *early, last = batches
        terms = []
        with self.place.accumulating(forward):
            for number, sample in enumerate(early):
                self._seed(step, number)
                terms.append(self._backward(forward, sample, len(batches)))
        self._seed(step, len(early))
        terms.append(self._backward(forward, last, len(batches)))
        with self.phase("optimizer"):
            self.scaler.unscale_(self.optimizer)
            if self.watch:
                self.watch.before_clipping(step)
            norm = self._clip()
            shared = self._agree(terms, stop())
            finite = torch.isfinite(shared[0]) & torch.isfinite(norm)
            self.is_whole = False
            self._update(finite)
            if self.watch:
                self.watch.after_update(step)
        verdict = (norm, finite, self.scaler.scale(torch.ones_like(norm)))
        # The one wait for the device, when the change of the weights is already queued behind the gradients.
        loss, pixels, looks, stops, grad_norm, applied, scale = torch.cat(
            [shared, torch.stack([value.to(shared) for value in verdict])]
        ).tolist()
        if applied and self.average:
            with self.phase("average"):
                self.average.update(step)
        self.is_whole = True
        overflow = not applied and self.scaler.is_enabled() and loss < float("inf") and scale > 1
        lr = learning_rate(step, self.config, self.steps)
        return StepResult(loss, pixels, looks, grad_norm, lr, bool(applied), overflow, stops > 0)

    def repeat(self, step: int, batches: Sequence[Sample]) -> list[LossTerms]:
        """Do forward and backward of a step again, each process by itself; nothing but `grad` changes.

        Gradients are those of the scaled loss (fp16), neither averaged over the processes nor clipped.

        Returns:
            the losses of each batch, over the number of batches.
        """
        self.optimizer.zero_grad(set_to_none=True)
        self.network.train()
        terms = []
        with self.place.eager():
            for number, sample in enumerate(batches):
                self._seed(step, number)
                terms.append(self._backward(self.network, sample, len(batches)))
        return terms

    def tensors(self) -> dict[str, Tensor]:
        """Everything to save that is a tensor: `model.*`, `ema.*` and `optimizer.*`.

        All processes must ask for it at the same time; what is sharded only the main one gets, whole and on the CPU.
        """
        state = {f"model.{name}": value for name, value in self.network.state_dict().items()}
        if self.average:
            averaged = dict(self.average.network.named_parameters())
            state |= {f"ema.{name}": averaged[name].detach() for name in self._learning}
        steps = []
        for name, parameter in self._learning.items():
            moments = self.optimizer.state.get(parameter, {})
            steps.append(float(moments.get("step", 0.0)))
            state |= {f"optimizer.{key}.{name}": moments[key] for key in _MOMENTS if key in moments}
        if self.place.shards:
            state = whole_on_main(state, is_main=self.place.is_main)
        return state | {"optimizer.steps": torch.tensor(steps)}

    def plain(self) -> dict[str, Any]:
        """Everything to save that is not a tensor, for `load`."""
        return {"scaler": self.scaler.state_dict()}

    def load(self, tensors: Mapping[str, Tensor], plain: Mapping[str, Any]) -> None:
        """Take up the state given by `tensors()` and `plain()`.

        Raises:
            CheckpointError: the state is of another network or optimizer.
        """
        try:
            load_whole(self.network, _under("model.", tensors))
            if self.average:
                load_whole(self.average.network, _under("model.", tensors) | _under("ema.", tensors))
            self._load_moments(tensors)
        except (RuntimeError, KeyError) as error:
            raise CheckpointError(f"the checkpoint does not fit the network: {error}") from error
        if self.scaler.is_enabled() and plain["scaler"]:  # another precision than fp16 left none
            self.scaler.load_state_dict(dict(plain["scaler"]))

    def _load_moments(self, tensors: Mapping[str, Tensor]) -> None:
        steps = tensors["optimizer.steps"]
        for (name, parameter), step in zip(self._learning.items(), steps, strict=True):
            if step == 0:
                continue
            moments = {
                key: rows_like(tensors[f"optimizer.{key}.{name}"], parameter).to(parameter.device)
                for key in _MOMENTS
            }
            self.optimizer.state[parameter] = {"step": step.clone().to(parameter.device), **moments}

    def _enter_phase(self, step: int) -> Callable[..., Tensor]:
        frozen = frozen_groups(self.optimizer, step)
        if self._forward is None or frozen != self._frozen:
            freeze(self.optimizer, frozen)
            self._forward = (
                None  # the old wrapper must let go of the parameters before the new one takes them
            )
            self._forward = self.place.wrap(self.network.train())
            self._frozen = frozen
        return self._forward

    def _seed(self, step: int, number: int) -> None:
        """Begin the random numbers of batch `number` of this process in a step."""
        place = self.place
        sequence = np.random.SeedSequence((self.seed, step, number * place.world + place.rank))
        torch.manual_seed(int(sequence.generate_state(1)[0]))

    def _to_device(self, sample: Sample) -> Sample:
        if sample.blurry.device.type == self.place.device.type:
            return sample
        return Sample(*(part.pin_memory().to(self.place.device, non_blocking=True) for part in sample))

    def _inputs(self, sample: Sample) -> tuple[Tensor | None, ...]:
        voxels = self.normalizer(sample.voxels) if self.normalizer else None
        return to_unit(sample.blurry), voxels, *([sample.instants] if self.takes_instants else [])

    def _backward(self, forward: Callable[..., Tensor], sample: Sample, count: int) -> LossTerms:
        with self.phase("transfer"):
            sample = self._to_device(sample)
        with self.phase("forward"):
            with self.place.autocast():
                restored = forward(*self._inputs(sample))
            # In float32: what is left to learn is a small difference of large values.
            terms = self.loss(restored, to_unit(sample.sharp))
        with self.phase("backward"):
            self.scaler.scale(terms.total / count).backward()
        return LossTerms(*(term.detach() / count for term in terms))

    def _clip(self) -> Tensor:
        gradients = [parameter.grad for parameter in self._parameters if parameter.grad is not None]
        norm = nn.utils.get_total_norm(gradients)
        if self.config.clip_norm is not None:
            nn.utils.clip_grads_with_norm_(self._parameters, self.config.clip_norm, norm)
        return whole(norm)

    def _agree(self, terms: Sequence[LossTerms], stop: bool) -> Tensor:
        """Loss, its two terms and requests to stop, as (4,) on the device; the same in every process."""
        losses = torch.stack([torch.stack(term) for term in terms]).sum(0) / self.place.world
        return self.place.sum(torch.cat([losses, losses.new_full((1,), float(stop))]))

    def _update(self, finite: Tensor) -> None:
        """Change the weights if `finite` (bool scalar on the device) is true, without waiting to know.

        AdamW's fused kernel looks at `found_inf` itself and then leaves weights, moments and step counts alone.
        """
        self.optimizer.found_inf = (~finite).float()
        self.optimizer.step()
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
