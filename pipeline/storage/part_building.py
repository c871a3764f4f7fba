"""Building one part of a stage beside the other parts: their own sequences, no commit, a record of what is done."""

import contextlib
import shutil
from collections.abc import Iterable
from pathlib import Path

from pipeline.files import PARTIAL, make_durable
from pipeline.storage.building import ArrayJob, StoreBuilder
from pipeline.storage.generations import folders_with
from pipeline.storage.nodes import BUILDING
from pipeline.storage.plans import (
    Part,
    PartRecord,
    Plan,
    forget_record,
    locked_part,
    locked_plans,
    require_same,
    write_plan,
    write_record,
)
from pipeline.storage.root import Attributes


class PartBuilder(StoreBuilder):
    """One of the processes that build a stage of a store in parts, for the time of a `with` block.

    Raises:
        StoreError: another process changes the store, builds the same part, or parts of another plan.
    """

    is_shared = True

    def __init__(self, store: Path, plan: Plan, part: Part, seen: Attributes | None) -> None:
        super().__init__(store, plan.stage, seen)
        self.plan = plan
        self._part = part

    def _prepare(self, locks: contextlib.ExitStack) -> None:
        with locked_plans(self.store):
            if not require_same(self.store, self.plan):
                super()._prepare(locks)
                write_plan(self.store, self.plan)
        locks.enter_context(locked_part(self.store, self.stage, self._part))
        forget_record(self.store, self.stage, self._part)

    def begin(self, jobs: Iterable[ArrayJob]) -> None:
        """Make room for building `jobs`, and drop what an earlier run of this part built of other arrays."""
        self._drop_shares(except_of={self._name(job.array) for job in jobs})
        make_durable(self._receipts)

    def forget_receipts(self) -> None:
        """Build this part anew, even what an interrupted run of it finished."""
        self._drop_shares()

    def keep(self, record: PartRecord) -> None:
        """Say that the part is built."""
        write_record(self.store, self.stage, self._part, record)

    def _drop_shares(self, except_of: Iterable[str] = ()) -> None:
        """Drop what was built of this part's sequences. Those of other parts may be being written."""
        keep = set(except_of)
        for key in self._part.share(self.plan.sequences):
            for name, receipts in list(folders_with(".json", self._receipts / key)):
                if f"{key}/{name}" not in keep:
                    shutil.rmtree(self.store / BUILDING / key / name, ignore_errors=True)
                    shutil.rmtree(receipts)
            for folder in (self._receipts / key, self.store / BUILDING / key):
                for partial in folder.rglob(f".*{PARTIAL}"):
                    partial.unlink()
