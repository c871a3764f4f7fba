"""Protocols: what each computes of a frame, by hand and by another implementation."""

import math

import torch

from model.evaluation.protocols import DEFAULT, PROTOCOLS, Candidate, Shot


def shot(sharp: torch.Tensor) -> Shot:
    counts = torch.zeros(1, *sharp.shape[-2:], dtype=torch.uint8)
    return Shot(blurry=sharp, sharp=sharp, counts=counts, frames_per_bin=(1,), instant=0.5, scale=1)


def test_rgb8_all_scores_what_was_rounded():
    sharp = torch.full((3, 16, 16), 100, dtype=torch.uint8)
    candidate = Candidate(image=sharp / 255 + 0.3 / 255, rgb8=sharp + 2)
    values = PROTOCOLS[DEFAULT].score(candidate, shot(sharp))
    assert math.isclose(values["psnr"], 20 * math.log10(255 / 2))
    assert values["ssim"] < 1


def test_every_protocol_is_filed_under_its_name():
    assert all(protocol.name == name for name, protocol in PROTOCOLS.items())
