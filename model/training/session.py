"""One session of a run: who may train in the folder, and how it ended, whichever way that was."""

import contextlib
import fcntl
import logging
import os
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from model.training.run_folder import RunFolder
from model.training.runlog import ROUTINE
from pipeline.errors import SpkError, UsageError
from pipeline.storage.lock import describe_process, is_locked

logger = logging.getLogger(__name__)

LOCK = ".lock"
"""In the run folder: its owner's description, locked for as long as the owner lives. It stays when that ends."""
How = Literal["finished", "interrupted", "failed"]


class Session:
    """What is known of a session while it runs.

    Attributes:
        step: steps done.
        interrupted: whether it was asked to end before its last step.
    """

    def __init__(self, step: int) -> None:
        self.step = step
        self.interrupted = False

    def end(self, error: BaseException | None) -> dict[str, Any]:
        """What is true of it at its end, for `run.json`."""
        by_hand = self.interrupted or isinstance(error, KeyboardInterrupt)
        how: How = "interrupted" if by_hand else "failed" if error else "finished"
        ended = datetime.now(UTC).isoformat(timespec="seconds")
        return {
            "ended": ended,
            "step": self.step,
            "how": how,
            "error": _told(error) if how == "failed" else None,
        }


@contextlib.contextmanager
def recorded(
    folder: RunFolder, config: str, facts: Mapping[str, Any], begin: Mapping[str, Any]
) -> Iterator[Session]:
    """Be the one who trains in `folder`, and keep in its `run.json` how this session began and how it ended.

    Args:
        config: the text of `config.yaml`.
        facts: what is true of the run.
        begin: what is true of the session, with `from_step`.

    Raises:
        UsageError: another process is training in the folder.
        CheckpointError: run.json is damaged.
    """
    with _lock(folder.path):
        folder.write_config(config)
        folder.write_session(facts, begin)
        session, ending = Session(begin["from_step"]), None
        try:
            yield session
        except BaseException as error:
            ending = error
            raise
        finally:
            end = session.end(ending)
            said = f"{end['how']}: {end['error']}" if end["error"] else end["how"]
            logger.info("ended after step %d: %s", session.step, said, extra=ROUTINE)
            try:
                folder.end_session(end)
            except (
                OSError,
                SpkError,
            ) as error:  # the disk is full, or the folder gone: not what ended the run
                logger.error("%s: the end of the session is not recorded: %s", folder.path, error)


def is_running(run: Path) -> bool:
    """Whether a process trains in the folder now, on this machine or any that shares its locks."""
    try:
        return is_locked(run / LOCK)
    except OSError:
        return False


@contextlib.contextmanager
def _lock(run: Path) -> Iterator[None]:
    path = run / LOCK
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.pread(descriptor, 4096, 0).decode(errors="replace") or "it does not say who"
            fix = "wait for it, or stop it; another run needs another folder (-o)"
            raise UsageError(f"{run}: another process is training here: {owner}", fix) from None
        except OSError as error:
            logger.warning(
                "%s: cannot be locked (%s): see that nobody else trains in this folder", run, error
            )
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, os.fsencode(describe_process()), 0)
        yield
    finally:
        os.close(descriptor)


def _told(error: BaseException | None) -> str:
    """As `spk` would say it."""
    return error.problem if isinstance(error, SpkError) else f"{type(error).__name__}: {error}"
