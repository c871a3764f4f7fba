"""One session of a run: how it began, and how it ended, whichever way that was."""

import contextlib
import logging
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from model.training.run_folder import LOCK, RunFolder
from model.training.runlog import ROUTINE
from pipeline.errors import SpkError
from pipeline.storage.lock import is_locked

logger = logging.getLogger(__name__)

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
    """Keep in `run.json` how this session began and how it ended; the folder is locked.

    Args:
        config: the text of `config.yaml`.
        facts: what is true of the run.
        begin: what is true of the session, with `from_step`.

    Raises:
        CheckpointError: run.json is damaged.
    """
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
        except (OSError, SpkError) as error:
            # The disk is full, or the folder gone; it must not hide what ended the run.
            logger.error("%s: the end of the session is not recorded: %s", folder.path, error)


def is_running(run: Path) -> bool:
    """Whether a process trains in the folder now, on this machine or any that shares its locks."""
    try:
        return is_locked(run / LOCK)
    except OSError:
        return False


def _told(error: BaseException | None) -> str:
    """As `spk` would say it."""
    return error.problem if isinstance(error, SpkError) else f"{type(error).__name__}: {error}"
