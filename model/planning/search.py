"""The search for the fastest way to take a step's clips that keeps within the memory.

From small batches to large ones, so that each is better foretold than the one before, and none is tried that is
foretold not to fit; until larger ones are no faster any more.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from model.cost import STAGES
from model.planning.demand import Demand, Setting
from model.planning.rehearsal import OutOfMemory, Rehearsal

FASTER = 0.98
"""A larger batch must take less than this much of the time of a smaller one to be preferred."""
_BEYOND = 1.05
"""What a setting that ran out of memory is taken to need, over the budget."""
_SMALLEST_CROP = 16
_SMALLER_CROPS = (3 / 4, 1 / 2, 3 / 8, 1 / 4)


class Verdict(StrEnum):
    """How a candidate fared."""

    CHOSEN = "chosen"
    FITS = "fits"
    TOO_LARGE = "too large"
    NOT_TRIED = "not tried"


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """A setting that was considered.

    Attributes:
        predicted_bytes: before it was tried.
        extra_flops: that recomputation adds to a step, as a share of it.
        rehearsal: of it; None if it was not tried, or ran out of memory.
        step_s: of a step, as the mean over the run; None without a rehearsal.
        reason: of the verdict.
    """

    setting: Setting
    predicted_bytes: int
    extra_flops: float
    verdict: Verdict
    reason: str
    rehearsal: Rehearsal | None = None
    step_s: float | None = None


Try = Callable[[Setting], tuple[Rehearsal, float] | OutOfMemory]
"""Rehearses a setting: what that cost, and the seconds of a step."""


class Search:
    """Considers settings, and keeps what was found.

    Args:
        demand: foretells memory.
        budget_bytes: for it.
        attempt: tries a setting.
        always: stages that are recomputed in any case.
        dares: whether running out of memory is survived, so that what is foretold on no evidence need not be believed.
    """

    def __init__(
        self,
        demand: Demand,
        budget_bytes: int,
        attempt: Try,
        *,
        always: Collection[int] = (),
        dares: bool = False,
    ) -> None:
        self.demand = demand
        self.budget_bytes = budget_bytes
        self.attempt = attempt
        self.always = always
        self.dares = dares
        self.candidates: list[Candidate] = []

    def run(self, divisible: int, crops: Sequence[int]) -> Candidate | None:
        """Find the fastest setting of the largest crop that fits; None if none does.

        Args:
            divisible: whose divisors are the numbers of batches to consider.
            crops: from the largest to the smallest.
        """
        for crop in crops:
            fitting: list[Candidate] = []
            for batches in reversed(divisors(divisible)):
                setting = Setting(batches=batches, crop=crop)
                if fitting and not self._gains(fitting):
                    reason = "larger batches were no faster"
                    self._consider(setting, Verdict.NOT_TRIED, reason)
                elif (found := self._fit(setting)) is None:
                    break
                else:
                    fitting.append(found)
            if fitting:
                return self._choose(fitting)
        return None

    def reject(self, candidate: Candidate, reason: str) -> Candidate | None:
        """Give up a chosen candidate; the next best of its crop, if there is one."""
        self._replace(candidate, replace(candidate, verdict=Verdict.TOO_LARGE, reason=reason))
        left = [
            other
            for other in self.candidates
            if other.verdict == Verdict.FITS and other.setting.crop == candidate.setting.crop
        ]
        return self._choose(left) if left else None

    def foretell(self, divisible: int, crop: int) -> None:
        """Consider the settings of a crop without trying any."""
        for batches in reversed(divisors(divisible)):
            setting = Setting(batches=batches, crop=crop)
            chosen = self.demand.cheapest(setting, self.budget_bytes, self.always)
            if chosen:
                self._consider(chosen, Verdict.NOT_TRIED, "should fit")
            else:
                self._consider(self._smallest(setting), Verdict.NOT_TRIED, "should not fit")

    def _fit(self, setting: Setting) -> Candidate | None:
        """Try a setting, recomputing more and more stages until it fits."""
        tried: set[Setting] = set()
        while True:
            chosen = self.demand.cheapest(setting, self.budget_bytes, self.always)
            if chosen is None:
                chosen = self._smallest(setting)
                if self.demand.measured or not self.dares:
                    self._consider(chosen, Verdict.NOT_TRIED, "is foretold not to fit")
                    return None
            if chosen in tried:
                return None
            tried.add(chosen)
            predicted = self.demand.bytes(chosen)
            outcome = self.attempt(chosen)
            if isinstance(outcome, OutOfMemory):
                need = max(round(_BEYOND * self.budget_bytes), predicted)
                self._consider(chosen, Verdict.TOO_LARGE, outcome.text)
                self.demand = self.demand.after(chosen, need)
                continue
            rehearsal, step_s = outcome
            fits = rehearsal.peak_bytes <= self.budget_bytes
            verdict, reason = (Verdict.FITS, "") if fits else (Verdict.TOO_LARGE, "above the budget")
            found = self._consider(chosen, verdict, reason, rehearsal, step_s)
            self.demand = self.demand.after(chosen, rehearsal.peak_bytes)
            if fits:
                return found

    def _smallest(self, setting: Setting) -> Setting:
        return replace(setting, checkpoint_stages=tuple(STAGES))

    def _gains(self, fitting: Sequence[Candidate]) -> bool:
        """Whether the last batch was faster than all smaller ones."""
        *before, last = [_step_s(candidate) for candidate in fitting]
        return all(last < FASTER * seconds for seconds in before)

    def _choose(self, fitting: Sequence[Candidate]) -> Candidate:
        """The fastest; of those about as fast, the one with the smallest memory."""
        least = min(map(_step_s, fitting))
        equal = [candidate for candidate in fitting if _step_s(candidate) * FASTER <= least]
        best = min(equal, key=lambda candidate: candidate.rehearsal.peak_bytes if candidate.rehearsal else 0)
        for candidate in fitting:
            if candidate is not best:
                slower = _step_s(candidate) / _step_s(best) - 1
                reason = f"{slower:.0%} slower" if candidate not in equal else "no faster, and larger"
                self._replace(candidate, replace(candidate, reason=reason))
        chosen = replace(best, verdict=Verdict.CHOSEN, reason="fastest that fits")
        self._replace(best, chosen)
        return chosen

    def _consider(
        self,
        setting: Setting,
        verdict: Verdict,
        reason: str,
        rehearsal: Rehearsal | None = None,
        step_s: float | None = None,
    ) -> Candidate:
        candidate = Candidate(
            setting=setting,
            predicted_bytes=self.demand.bytes(setting),
            extra_flops=self.demand.extra_flops(setting),
            verdict=verdict,
            reason=reason,
            rehearsal=rehearsal,
            step_s=step_s,
        )
        self.candidates.append(candidate)
        return candidate

    def _replace(self, old: Candidate, new: Candidate) -> None:
        self.candidates[self.candidates.index(old)] = new


def divisors(number: int) -> list[int]:
    """From 1 to the number itself."""
    return [divisor for divisor in range(1, number + 1) if number % divisor == 0]


def smaller_crops(crop: int, scale: int) -> Iterator[int]:
    """`crop`, and what to fall back to, as whole spike pixels.

    Args:
        scale: RGB pixels per spike pixel.
    """
    step = max(scale, 8) if scale <= 8 and 8 % scale == 0 else scale
    yield crop
    for share in _SMALLER_CROPS:
        smaller = int(crop * share) // step * step
        if _SMALLEST_CROP <= smaller < crop:
            yield smaller


def _step_s(candidate: Candidate) -> float:
    assert candidate.step_s is not None  # it was rehearsed
    return candidate.step_s
