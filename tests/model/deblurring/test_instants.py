"""Instants as a user writes them, and the networks that know them."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from model.deblurring.instants import at_instant, instants_of, parse_instants, suffix_of
from pipeline.errors import UsageError


def info(**network):
    return SimpleNamespace(path=Path("run/best.safetensors"), config={"network": network})


def test_instants_are_put_in_order_of_time():
    assert parse_instants("0.9, 0.1,0.5") == (0.1, 0.5, 0.9)


@pytest.mark.parametrize("text", ["0", "1", "0.5,x", "", "-0.1", "0.5,1.5", "nan", "0.2,0.2"])
def test_refuses_what_is_no_instant(text):
    with pytest.raises(UsageError, match="--at"):
        parse_instants(text)


def test_names_tell_instants_apart():
    assert [suffix_of(t) for t in (0.1, 0.25, 0.125, 0.1004)] == [
        "_at0.10",
        "_at0.25",
        "_at0.125",
        "_at0.1004",
    ]


def test_only_networks_that_are_told_instants_take_them():
    assert instants_of(info(instants=True), (0.1, 0.9)) == (0.1, 0.9)
    assert instants_of(info(instants=True), ()) == (0.5,)
    assert instants_of(info(), ()) == (None,)
    for network in ({}, {"instants": False}):
        with pytest.raises(UsageError, match=r"run/best\.safetensors") as caught:
            instants_of(info(**network), (0.1,))
        assert "network.instants=true" in caught.value.fix


def test_every_frame_of_a_clip_is_told_the_instant():
    told = []

    def restorer(blurry, counts, instants=None):
        told.append(instants)
        return blurry

    clip = torch.zeros(1, 3, 3, 8, 8)
    assert at_instant(restorer, None) is restorer
    assert at_instant(restorer, 0.25)(clip, None) is clip
    assert torch.equal(told[0], torch.full((1, 3), 0.25))
