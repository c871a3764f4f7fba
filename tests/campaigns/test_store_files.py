"""Files of a store deleted, cut short, emptied, appended to, swapped, overwritten: never read as if nothing were."""

import numpy as np
import pytest

from tests.campaigns.damage import CHANGES, Findings, named
from tests.campaigns.protections import switch_off
from tests.campaigns.stores import files_of, plain_values_of, tree_of, values_of

SEED = 20261129
SMALL, EVERY = 15, 1 << 30


def change_each(store, values, kind, count, verify, read=values_of):
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
        findings.read(store, values, f"{names} {kind}", read)
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
    assert (findings.silent, findings.crashed, findings.unseen) == ([], [], [])


def test_swapped_shards_are_silent_where_seals_are_not_compared(made, tmp_path, monkeypatch, campaign):
    """Teeth: without seals, the same campaign finds values in the wrong place."""
    store = made.copy("whole", tmp_path / "store")
    switch_off(monkeypatch, "seals")
    findings = change_each(store, made.values["whole"], "swapped", 2 * SMALL, None)
    campaign("files swapped, no seals", **findings.figures, seed=SEED)
    assert findings.silent


@pytest.mark.parametrize("kind", ["deleted", "emptied", "swapped"])
def test_changed_files_are_silent_where_the_ledger_is_not_compared(kind, made, tmp_path, campaign):
    """Teeth: read with plain zarr, which has no ledger, the same campaign finds values that are wrong."""
    store = made.copy("whole", tmp_path / "store")
    findings = change_each(store, plain_values_of(store), kind, SMALL, None, plain_values_of)
    campaign(f"files {kind}, read with plain zarr", **findings.figures, seed=SEED)
    assert findings.silent
