import os
import signal
import socket
import time
from pathlib import Path

import pytest

import pipeline.cluster
from pipeline.cluster import run_on_cluster
from pipeline.errors import ClusterError, FormatError, StoreError, UsageError
from pipeline.ingest import ingest
from pipeline.reports import no_progress
from pipeline.storage import building
from pipeline.storage.root import WORK
from pipeline.voxelize import voxelize


def run(function, items, cluster, progress=no_progress):
    return run_on_cluster(function, items, cluster.address, progress, "some items")


def slow_but_the_first(path):
    if path.name == "0":
        raise FormatError(f"{path}: no such file", "put it there")
    path.with_suffix(".begun").touch()
    time.sleep(1)
    path.with_suffix(".done").touch()


def end_worker(_):
    os.kill(os.getpid(), signal.SIGKILL)


def import_what_is_not_there(_):
    import not_there  # noqa: F401


def test_results_are_in_order_and_errors_come_back_when_nobody_is_at_work(cluster, tmp_path):
    cluster.start()
    told = []
    assert run(abs, range(-9, 0), cluster, lambda *news: told.append(news)) == list(range(9, 0, -1))
    assert told == [(done, 9, "some items") for done in range(1, 10)]
    with pytest.raises(FormatError, match=r"0: no such file\nfix: put it there"):
        run(slow_but_the_first, [tmp_path / str(number) for number in range(8)], cluster)
    begun, done = (sorted(path.stem for path in tmp_path.glob(f"*.{end}")) for end in ("begun", "done"))
    assert begun == done and len(begun) < 7
    with pytest.raises(ClusterError, match="a worker lacks what spk needs: No module named 'not_there'"):
        run(import_what_is_not_there, [1], cluster)


def test_no_scheduler_is_a_usage_error_and_no_worker_an_error(cluster, monkeypatch):
    monkeypatch.setattr(pipeline.cluster, "CONNECT_S", 1)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        with pytest.raises(UsageError, match=r"cannot connect: .*\nfix: start it with: dask scheduler"):
            run_on_cluster(abs, [1], f"tcp://127.0.0.1:{taken.getsockname()[1]}", no_progress, "items")
    monkeypatch.setattr(pipeline.cluster, "NO_WORKERS_S", 1)
    cluster.start(workers=0)
    with pytest.raises(ClusterError, match=r"it has no workers.*\nfix: .* dask worker tcp://"):
        run(abs, [1], cluster)


@pytest.mark.parametrize(
    "nanny",
    [
        pytest.param(False, id="workers stay dead"),
        pytest.param(True, id="workers are started again", marks=pytest.mark.slow),
    ],
)
def test_an_item_that_ends_its_workers_is_an_error_within_half_a_minute(nanny, cluster, monkeypatch):
    monkeypatch.setattr(pipeline.cluster, "WORKERS_GONE_S", 15 if nanny else 3)
    cluster.start(workers=0)
    for _ in range(2):
        cluster.add_worker(nanny=nanny)
    assert run(abs, [-1], cluster) == [1]
    started = time.monotonic()
    with pytest.raises(
        ClusterError, match=r"the item: every worker that tried this died|all its workers are gone"
    ):
        run(end_worker, ["the item"], cluster)
    assert time.monotonic() - started < 30


def test_a_store_is_the_same_when_a_worker_is_killed(cluster, shared_raw, tmp_path, tree_of, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where the workers are not: they get absolute paths
    ingest(shared_raw.root, Path("serial"), shared_raw.manifest)
    voxelize(Path("serial"), num_bins=8)
    cluster.start()

    def kill_one(done, total, what):
        if what == "shards written" and done >= 2 and cluster.workers[0].poll() is None:
            cluster.workers[0].kill()

    relative = Path(os.path.relpath(shared_raw.root))
    ingest(relative, Path("store"), shared_raw.manifest, scheduler=cluster.address, progress=kill_one)
    assert cluster.workers[0].wait(10) == -signal.SIGKILL
    voxelize(Path("store"), num_bins=8, scheduler=cluster.address)
    assert tree_of(tmp_path / "store") == tree_of(tmp_path / "serial")


def test_a_scheduler_that_goes_away_is_an_error_and_the_next_run_goes_on(
    cluster, shared_raw, tmp_path, tree_of, monkeypatch
):
    out = tmp_path / "store"
    ingest(shared_raw.root, tmp_path / "serial", shared_raw.manifest)
    cluster.start(workers=1)

    def kill_scheduler(done, total, what):
        if what == "shards written" and done >= 2:
            cluster.scheduler.kill()

    started = time.monotonic()
    with pytest.raises(ClusterError, match=r"the connection is lost\nfix: .*goes on where it stopped"):
        ingest(shared_raw.root, out, shared_raw.manifest, scheduler=cluster.address, progress=kill_scheduler)
    assert time.monotonic() - started < 60 and not (out / "zarr.json").exists()
    for worker in cluster.workers:
        worker.wait(30)
    cluster.start(workers=1)
    report = ingest(shared_raw.root, out, shared_raw.manifest, scheduler=cluster.address)
    assert report.skipped >= 2 and report.written + report.skipped == 18
    assert tree_of(out) == tree_of(tmp_path / "serial")


def test_shards_that_a_worker_wrote_elsewhere_are_no_store(raw, tmp_path, monkeypatch):
    build_all = building.StoreBuilder.build

    def on_another_disk(self, jobs, run):
        def run_there(pieces):
            built = run(pieces)
            for one in built[:1]:
                (one.piece.array / one.receipt.key).unlink()
            return built

        return build_all(self, jobs, run_there)

    monkeypatch.setattr(building.StoreBuilder, "build", on_another_disk)
    with pytest.raises(StoreError, match="a worker wrote it, but it is not here"):
        ingest(raw.root, tmp_path / "store", raw.manifest)
    assert (tmp_path / "store" / WORK).is_dir() and not (tmp_path / "store/zarr.json").exists()
