import os
import signal
import time
from pathlib import Path

import torch
import torch.distributed as dist

from model.parallel import ParallelConfig, parallel
from model.peers import Peers, within
from pipeline.errors import SpkError
from tests.ranks import ranks


def wait_for_a_lost_one() -> None:
    """Process 0 is stuck where no signal and no error reaches it; 1 is killed; 2 waits for 1 in an operation."""
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    Peers(grace_s=0.2 if rank == 0 else 60)
    if rank == 1:
        time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGKILL)
    if rank == 2:
        dist.recv(torch.zeros(1), 1)
    time.sleep(600)


def test_a_process_that_waits_for_a_lost_one_ends_with_an_error(tmp_path: Path) -> None:
    with ranks(tmp_path, wait_for_a_lost_one, world=3) as workers:
        assert workers.wait(60) == [1, -signal.SIGKILL, 1]
    assert "process 0: process 1 of the run is gone" in workers.said(0)
    assert "Connection closed by peer" in workers.said(2)


def part_at_different_times() -> str:
    dist.init_process_group("gloo")
    peers = Peers(grace_s=0.1)
    time.sleep(0.5 * dist.get_rank())  # longer than any would be missed
    peers.part()
    dist.destroy_process_group()
    return f"lost {peers.lost}"


def test_nobody_is_missed_who_says_good_bye(tmp_path: Path) -> None:
    with ranks(tmp_path, part_at_different_times) as workers:
        assert workers.wait(60) == [0, 0]
    assert workers.said(0) == workers.said(1) == "lost set()\n"


def part_from_a_lost_one() -> str:
    dist.init_process_group("gloo")
    peers = Peers(grace_s=0.1)
    if dist.get_rank() == 1:
        time.sleep(0.5)  # 0 has said good-bye by then
        os.kill(os.getpid(), signal.SIGKILL)
    peers.part()
    return "left"


def test_who_has_done_its_work_is_not_ended_by_the_loss_of_another(tmp_path: Path) -> None:
    with ranks(tmp_path, part_from_a_lost_one) as workers:
        assert workers.wait(60) == [0, -signal.SIGKILL]
    assert workers.said(0) == "left\n"


def fail_alone(timeout_s: float) -> str:
    """Process 1 fails, or with a short timeout only idles, while 0 waits for it."""
    try:
        with parallel(ParallelConfig(device="cpu", timeout_s=timeout_s)) as place:
            if place.rank == 1 and timeout_s < 5:
                time.sleep(600)
            if place.rank == 1:
                raise ValueError("mine")
            place.sum(torch.ones(1))
    except SpkError as error:
        return str(error)
    except ValueError as error:
        return str(error)
    return "done"


def test_an_error_of_one_process_ends_the_others_with_one_of_their_own(tmp_path: Path) -> None:
    with ranks(tmp_path, fail_alone, 60.0) as workers:
        assert workers.wait(60) == [0, 0]
    assert workers.said(1) == "mine\n"
    assert workers.said(0).startswith("process 1 of the run ended before this one")
    assert "--resume" in workers.said(0)


def test_a_process_that_does_not_answer_is_waited_for_as_long_as_the_config_says(tmp_path: Path) -> None:
    with ranks(tmp_path, fail_alone, 1.0) as workers:
        workers.processes[0].join(60)
        assert workers.processes[0].exitcode == 0, workers.said(0)
    assert "do not answer each other" in workers.said(0) and "parallel.timeout_s=1" in workers.said(0)


def leave_late(seconds: float) -> str:
    with within(0.3, "it hangs"):
        time.sleep(seconds)
    return "left"


def test_what_takes_too_long_at_the_end_ends_the_process(tmp_path: Path) -> None:
    with ranks(tmp_path, leave_late, 600, world=1) as stuck, ranks(tmp_path, leave_late, 0, world=1) as quick:
        assert (stuck.wait(60), quick.wait(60)) == ([1], [0])
    assert "process 0: it hangs" in stuck.said(0) and quick.said(0) == "left\n"
