"""A bit flipped in any file of a store: refused when it is read, or without effect; and found by `spk verify`."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.campaigns.damage import Findings, drawn_bits, flip, named
from tests.campaigns.protections import switch_off
from tests.campaigns.stores import Values, tree_of, values_of

SEED = 20261128
SMALL, FULL = 100, 2000


def flip_often(
    store: Path, values: Values, count: int, verify: Callable[[Path], set[str]] | None, name: str = "*"
) -> Findings:
    """Flip one bit at a time, read all of the store, ask `verify` for what is damaged, and put the bit back."""
    findings = Findings()
    for path, bit in drawn_bits(store, np.random.default_rng(SEED), count, name):
        whole = path.read_bytes()
        path.write_bytes(flip(whole, bit))
        place = str(path.relative_to(store))
        findings.read(store, values, f"bit {bit} of {place}")
        if verify and place not in (told := verify(store)):
            findings.unseen.append(f"bit {bit} of {place}: {told}")
        path.write_bytes(whole)
    return findings


@pytest.fixture
def store(made, tmp_path) -> Path:
    return made.copy("whole", tmp_path / "store")


@pytest.mark.parametrize("count", [SMALL, pytest.param(FULL, marks=pytest.mark.slow)])
def test_flipped_bits_are_refused_or_harmless(count, store, made, spk, campaign):
    findings = flip_often(store, made.values["whole"], count, lambda path: named(spk, path))
    campaign("bit flips in a store", **findings.figures, seed=SEED)
    assert tree_of(store) == made.trees["whole"] and values_of(store) == made.values["whole"]
    assert (findings.silent, findings.crashed, findings.unseen) == ([], [], [])
    assert named(spk, store) == set()


@pytest.mark.parametrize(
    ("protection", "name", "count"),
    [("chunk checksums", "[0-9]*", 40), ("metadata digests", "zarr.json", 200)],
)
def test_flipped_bits_are_silent_without(protection, name, count, store, made, monkeypatch, campaign):
    """Teeth: with checksums or digests not compared, the same campaign finds values that are wrong."""
    switch_off(monkeypatch, protection)
    findings = flip_often(store, made.values["whole"], count, None, name)
    campaign(f"bit flips, no {protection}", **findings.figures, seed=SEED)
    assert findings.silent
