"""Building a store while something goes wrong, and what is left of it."""

import shutil
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.errors import StoreError
from tests.campaigns.server import Ended, Server
from tests.campaigns.stores import Values, differences, tree_of, which


@dataclass(frozen=True)
class Stage:
    """A command that makes one generation of a store from another.

    Attributes:
        words: of the command, in which RAW, OTHER and STORE stand for places.
        before, after: names of the generations; "" is no store at all.
    """

    words: str
    before: str
    after: str


K4, PACKED = "voxelize STORE --bins 4", "voxelize STORE --bins 3 --codec zstd --name packed"
STAGES = {
    "ingest": Stage("ingest RAW -o STORE -m simulated", "", "plain"),
    "voxelize": Stage(K4, "plain", "k4"),
    "voxelize packed": Stage(PACKED, "k4", "whole"),
    "re-ingest": Stage("ingest OTHER -o STORE -m simulated", "whole", "changed"),
    "re-voxelize": Stage("voxelize STORE --bins 5 --name k4 --codec lz4", "whole", "recounted"),
}
"""Building a store, and building it again from other inputs or with other settings."""
DISTURBED = ("ingest", "re-ingest", "voxelize", "re-voxelize")
"""The stages that something happens to."""


@dataclass(frozen=True)
class Made:
    """Recordings, others of the same names, and every generation that `STAGES` make of them; not to be changed.

    Attributes:
        values, trees: what each generation holds, and its files, by name.
    """

    folder: Path
    values: dict[str, Values]
    trees: dict[str, dict[str, bytes | None]]

    @property
    def raw(self) -> Path:
        return self.folder / "raw"

    @property
    def other(self) -> Path:
        return self.folder / "other"

    def store(self, generation: str) -> Path:
        return self.folder / generation

    def copy(self, generation: str, target: Path) -> Path:
        """A store of this generation that a test may spoil; nothing for no generation."""
        if generation:
            shutil.copytree(self.store(generation), target)
        return target

    def words(self, stage: str, store: Path) -> list[str]:
        """The command line of a stage."""
        places = {"RAW": self.raw, "OTHER": self.other, "STORE": store}
        return [str(places.get(word, word)) for word in STAGES[stage].words.split()]

    def aftermath(self, stage: str, store: Path) -> str:
        """What a stage that was cut off left: "old" or "new", whole; "refused" where the store says that it is not.

        Raises:
            AssertionError: a mixture that passes for whole.
        """
        before, after = STAGES[stage].before, STAGES[stage].after
        known = {"new": self.values[after]} | ({"old": self.values[before]} if before else {})
        try:
            return which(store, known)
        except StoreError as error:
            return f"refused: {error.problem}"


@dataclass
class Tally:
    """What became of the stores of a campaign.

    Attributes:
        n: trials; landed: of these, the ones in which the fault came before the command was done.
        acknowledged: commands that said that they were done.
        lost: stores without the old generation or the new one, or without the new one though it was acknowledged.
        silent: stores that hold a mixture, and say nothing.
        resumed: stores that running the command again made byte-identical to one built undisturbed.
    """

    n: int = 0
    landed: int = 0
    acknowledged: int = 0
    lost: int = 0
    silent: int = 0
    resumed: int = 0
    faults: list[str] = field(default_factory=list)

    def add(
        self, made: Made, server: Server, stage: str, store: Path, ended: Ended | None, what: str
    ) -> None:
        """Look at a store whose stage was disturbed in the way `what`, finish the stage, and count what was found.

        Args:
            ended: how the command ended; None where what it says does not count, as it was killed.
        """
        self.n += 1
        done = ended is not None and ended.code == 0
        self.acknowledged += done
        try:
            left = made.aftermath(stage, store)
        except AssertionError as mixture:
            self.silent += 1
            self.faults.append(f"{stage}, {what}: {mixture}")
        else:
            allowed = ("new",) if done else ("new", "old") if STAGES[stage].before else ("new", "refused")
            if left.partition(":")[0] not in allowed:
                self.lost += 1
                self.faults.append(f"{stage}, {what}, {'acknowledged, ' * done}{left}")
        again = server.run(*made.words(stage, store))
        wrong = (
            differences(tree_of(store), made.trees[STAGES[stage].after]) if again.code == 0 else [again.err]
        )
        self.resumed += not wrong
        self.faults += [f"{stage}, {what}: not as undisturbed after it: {wrong[:5]}"] if wrong else []

    def __iadd__(self, other: "Tally") -> "Tally":
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)
        return self

    @property
    def figures(self) -> dict[str, object]:
        names = ("n", "landed", "acknowledged", "lost", "silent", "resumed")
        return {name: getattr(self, name) for name in names}
