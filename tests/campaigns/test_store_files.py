"""Files of a store deleted, cut short, emptied, appended to, swapped, overwritten: never read as if nothing were."""

import numpy as np
import pytest

from tests.campaigns.damage import CHANGES, Findings, named
from tests.campaigns.protections import switch_off
from tests.campaigns.stores import files_of, tree_of

SEED = 20261129
SMALL, EVERY = 15, 1 << 30


def change_each(store, values, kind, count, verify):
    """Change one file at a time, read all of the store, ask `verify` for what is damaged, and put it back."""
    findings, files = Findings(), files_of(store)
    rng = np.random.default_rng([SEED, list(CHANGES).index(kind)])
    whole = {path: path.read_bytes() for path in files}
    for number in sorted(rng.choice(len(files), min(count, len(files)), replace=False)):
        path = files[number]
        if not whole[path]:
            continue
        changed = CHANGES[kind](path, files, rng)
        names = {str(one.relative_to(store)) for one in changed}
        findings.read(store, values, f"{names} {kind}")
        if verify and not names <= (told := verify(store)):
            findings.unseen.append(f"{names} {kind}: {told}")
        for one in changed:
            one.write_bytes(whole[one])
    return findings


@pytest.mark.parametrize("count", [SMALL, pytest.param(EVERY, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", CHANGES)
def test_changed_files_are_refused_or_harmless(kind, count, made, tmp_path, spk, campaign):
    store = made.copy("whole", tmp_path / "store")
    findings = change_each(store, made.values["whole"], kind, count, lambda path: named(spk, path))
    campaign(f"files {kind}", **findings.figures, seed=SEED)
    assert tree_of(store) == made.trees["whole"]
    assert (findings.silent, findings.unseen) == ([], [])


@pytest.mark.parametrize(("kind", "protection"), [("swapped", "seals"), ("deleted", "file set")])
def test_changed_files_are_silent_without(kind, protection, made, tmp_path, monkeypatch, campaign):
    """Teeth: with the ledger not compared, the same campaign finds values that are wrong."""
    store = made.copy("whole", tmp_path / "store")
    switch_off(monkeypatch, protection)
    findings = change_each(store, made.values["whole"], kind, 4 * SMALL, None)
    campaign(f"files {kind}, no {protection}", **findings.figures, seed=SEED)
    assert findings.silent
