"""The errors a user can cause. `cli.main` prints them without a traceback and exits with their code."""


class SpkError(Exception):
    """Something outside the program is wrong: an input, an option, a disk.

    Args:
        problem: what happened, in which file, with which value.
        fix: what to do about it, as a command where there is one.
    """

    exit_code = 1

    def __init__(self, problem: str, fix: str = "") -> None:
        super().__init__(problem, fix)
        self.problem = problem
        self.fix = fix

    def __str__(self) -> str:
        return f"{self.problem}\nfix: {self.fix}" if self.fix else self.problem


class UsageError(SpkError):
    """A command was called in a way that cannot work (exit code 2)."""

    exit_code = 2


class ConfigError(UsageError):
    """A config, manifest or override has problems; all of them are in the message."""


class WorseError(SpkError):
    """What was compared is worse than what it was compared with, by more than is allowed (exit code 5)."""

    exit_code = 5


class ParityError(SpkError):
    """An exported program computes something else than the network that it was made of (exit code 4)."""

    exit_code = 4


class FormatError(SpkError):
    """Bytes are not what they were declared to be: a spike stream, an image."""


class AlignmentError(SpkError):
    """A timestamp log is malformed, or its exposures do not lie in the recording."""


class StoreError(SpkError):
    """A store is missing, damaged, unfinished, or in use by another writer."""


class ClusterError(SpkError):
    """A Dask cluster lost its scheduler, its workers, or a worker at every attempt at a piece."""


class CheckpointError(SpkError):
    """A checkpoint is missing, damaged, or does not fit the network."""


class TrainingError(SpkError):
    """Training cannot go on: non-finite losses, no clips, out of memory."""
