"""Workers of a Dask cluster killed at random instants: is the store the one that a single process makes?"""

import random
import signal
import time
from pathlib import Path

import pytest

from pipeline.errors import ClusterError
from pipeline.ingest import ingest
from pipeline.manifest import read_manifest
from pipeline.voxelize import voxelize

SEED = 20261124
SMALL, FULL = 2, 30


def tree_of(root: Path) -> dict[str, bytes]:
    return {str(file.relative_to(root)): file.read_bytes() for file in root.rglob("*") if file.is_file()}


@pytest.mark.parametrize(
    "trials", [pytest.param(SMALL, id="small"), pytest.param(FULL, id="full", marks=pytest.mark.slow)]
)
def test_workers_killed(trials, cluster, moving_raw, tmp_path, campaign):
    manifest, rng = read_manifest("simulated"), random.Random(SEED)
    ingest(moving_raw, tmp_path / "serial", manifest)
    voxelize(tmp_path / "serial", num_bins=8)
    expected, started = tree_of(tmp_path / "serial"), time.monotonic()
    cluster.start(workers=2)
    kills = identical = failed = longest = 0
    for trial in range(trials):
        out, victim = tmp_path / str(trial), cluster.workers[-1]
        stage, at = rng.choice(("shards written", "recordings examined", "voxel grids k8")), rng.randrange(12)

        def kill(done, total, what, victim=victim, stage=stage, at=at):
            if what == stage and done >= min(at, total - 1):
                victim.kill()

        began = time.monotonic()
        try:
            ingest(moving_raw, out, manifest, scheduler=cluster.address, progress=kill)
            voxelize(out, num_bins=8, scheduler=cluster.address, progress=kill)
        except ClusterError:
            failed += 1
        longest = max(longest, time.monotonic() - began)
        identical += out.is_dir() and tree_of(out) == expected
        kills += victim.wait(10) == -signal.SIGKILL
        cluster.add_worker()
    seconds = time.monotonic() - started
    campaign(
        n=trials,
        killed=kills,
        identical=identical,
        failed=failed,
        longest_s=f"{longest:.1f}",
        seed=SEED,
        s=f"{seconds:.0f}",
    )
    assert (kills, identical, failed) == (trials, trials, 0)
