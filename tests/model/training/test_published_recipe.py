"""Training by our configuration against the published recipe written out in plain PyTorch.

The recipe: KAIR's `006_train_vrt_videodeblurring_gopro.json`. Its loop takes the learning rate of step n (from 1)
after n steps of the scheduler, ours and torch's own examples after n - 1; the loop below does the latter.
"""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingWarmRestarts

from model.losses import CombinedLoss, LossConfig
from model.normalize import to_unit
from model.parallel import Parallel
from model.training.learner import Learner
from model.training.optim import OptimConfig
from pipeline.clips import Sample

STEPS, FIX_ITER = 24, 10
LR, ETA_MIN, EPS = 4e-3, 2e-4, 1e-9
CPU = Parallel(device=torch.device("cpu"))


class Net(nn.Module):
    """Parts under the names that the recipe looks for."""

    def __init__(self) -> None:
        super().__init__()
        self.spynet = nn.Conv2d(3, 4, 3, padding=1)
        self.stage1 = nn.ModuleDict(
            {"linear": nn.Conv2d(7, 8, 1), "pa_deform": nn.Conv2d(8, 8, 3, padding=1)}
        )
        self.conv_last = nn.Conv2d(8, 3, 3, padding=1)

    def forward(self, blurry: Tensor, voxels: Tensor | None = None) -> Tensor:
        frames = blurry.flatten(0, 1)
        x = torch.tanh(self.stage1["linear"](torch.cat((frames, self.spynet(frames)), dim=1)))
        return blurry + self.conv_last(torch.tanh(self.stage1["pa_deform"](x))).view_as(blurry)


def network() -> Net:
    torch.manual_seed(1)
    return Net()


def clip(step: int, batch: int = 4) -> Sample:
    generator = torch.Generator().manual_seed(step)
    blurry, sharp = torch.randint(0, 256, (2, batch, 2, 3, 8, 8), dtype=torch.uint8, generator=generator)
    return Sample(blurry, torch.empty(0), sharp)


def learner(config: OptimConfig, net: nn.Module) -> Learner:
    loss = CombinedLoss(LossConfig(charbonnier_delta=EPS**0.5, perceptual_weight=0.0))
    return Learner(net, loss, None, config, CPU, steps=STEPS, seed=0)


def published(net: nn.Module) -> Iterator[float]:
    """The loss of every step."""
    flow = [p for name, p in net.named_parameters() if "spynet" in name or "deform" in name]
    normal = [p for name, p in net.named_parameters() if "spynet" not in name and "deform" not in name]
    groups = [{"params": normal, "lr": LR}, {"params": flow, "lr": 0.125 * LR}]
    optimizer = torch.optim.Adam(groups, lr=LR, betas=(0.9, 0.99), weight_decay=0)
    scheduler = CosineAnnealingWarmRestarts(optimizer, STEPS, 1, eta_min=ETA_MIN)
    for current_step in range(1, STEPS + 1):
        for parameter in flow:
            parameter.requires_grad_(current_step >= FIX_ITER)
        batch = clip(current_step - 1)
        optimizer.zero_grad()
        difference = net(to_unit(batch.blurry)) - to_unit(batch.sharp)
        loss = torch.sqrt(difference * difference + EPS).mean()
        loss.backward()
        optimizer.step()
        scheduler.step()
        yield loss.item()


def ours_frozen_for(steps: int) -> tuple[Learner, list[float]]:
    """Our learner at the end of the same run, and the loss of every step."""
    config = OptimConfig(
        lr=LR,
        betas=(0.9, 0.99),
        weight_decay=0.0,
        warmup_steps=0,
        min_lr=ETA_MIN,
        clip_norm=None,
        ema_decay=0.0,
        flow_lr_multiplier=0.125,
        flow_freeze_steps=steps,
    )
    ours = learner(config, network())
    return ours, [ours.step(step, [clip(step)]).loss for step in range(STEPS)]


def test_gives_the_weights_of_the_published_recipe() -> None:
    ours, losses = ours_frozen_for(FIX_ITER - 1)
    theirs, fresh = network(), network().state_dict()
    assert losses == pytest.approx(list(published(theirs)), rel=1e-5)
    for name, weight in theirs.state_dict().items():
        assert (weight - fresh[name]).abs().max() > 2e-3  # it has learned
        torch.testing.assert_close(ours.network.state_dict()[name], weight, rtol=0, atol=1e-6)
    counts = {name: ours.optimizer.state[p]["step"] for name, p in ours.network.named_parameters()}
    assert counts["spynet.weight"] == counts["stage1.pa_deform.bias"] == STEPS - (FIX_ITER - 1)
    assert counts["stage1.linear.weight"] == STEPS


def test_another_step_of_freezing_would_be_seen() -> None:
    theirs = network()
    list(published(theirs))
    ours, _ = ours_frozen_for(FIX_ITER)
    assert (ours.network.spynet.weight - theirs.spynet.weight).abs().max() > 1e-4


@pytest.mark.parametrize("pieces", [1, 2, 4])
def test_accumulated_clipped_and_averaged_steps_are_those_of_one_large_batch(pieces: int) -> None:
    config = OptimConfig(
        lr=LR,
        weight_decay=0.1,
        warmup_steps=3,
        schedule="constant",
        clip_norm=0.02,
        ema_decay=0.5,
        accumulate=pieces,
        flow_lr_multiplier=1.0,
    )
    ours, theirs, average = learner(config, network()), network(), network()
    optimizer = torch.optim.AdamW(theirs.parameters(), lr=LR, betas=(0.9, 0.99), weight_decay=0.1)
    clipped = 0
    for step in range(8):
        batch = clip(step)
        shares = zip(batch.blurry.chunk(pieces), batch.sharp.chunk(pieces), strict=True)
        parts = [Sample(blurry, batch.voxels, sharp) for blurry, sharp in shares]
        result = ours.step(step, parts)
        optimizer.param_groups[0]["lr"] = LR * min((step + 1) / 3, 1.0)
        optimizer.zero_grad()
        difference = theirs(to_unit(batch.blurry)) - to_unit(batch.sharp)
        loss = torch.sqrt(difference * difference + EPS).mean()
        loss.backward()
        norm = nn.utils.clip_grad_norm_(theirs.parameters(), 0.02)
        optimizer.step()
        decay = min(0.5, (1 + step) / (10 + step))
        with torch.no_grad():
            for mean, weight in zip(average.parameters(), theirs.parameters(), strict=True):
                mean.copy_(decay * mean + (1 - decay) * weight)
        clipped += norm > 0.02
        assert (result.loss, result.grad_norm) == pytest.approx((loss.item(), norm.item()), rel=1e-4)
    assert clipped == 8
    for found, wanted in ((ours.network, theirs), (ours.best_network, average)):
        for name, weight in wanted.state_dict().items():
            torch.testing.assert_close(found.state_dict()[name], weight, rtol=0, atol=1e-5)
