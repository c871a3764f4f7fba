"""How fast an evaluation goes, and what of its time goes where."""

import contextlib
import time
from collections import Counter
from collections.abc import Iterator


class Timing:
    """Counts frames, and the seconds since it was made, all of them and those of named parts."""

    def __init__(self) -> None:
        self._began = time.perf_counter()
        self._parts: Counter[str] = Counter()
        self.frames = 0

    @contextlib.contextmanager
    def part(self, name: str) -> Iterator[None]:
        """The time inside belongs to the part `name`."""
        entered = time.perf_counter()
        try:
            yield
        finally:
            self._parts[name] += time.perf_counter() - entered

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self._began

    @property
    def frames_per_second(self) -> float:
        return self.frames / max(self.seconds, 1e-9)

    def to_json(self) -> dict[str, float | int]:
        """Plain JSON values: `seconds`, `frames`, `frames_per_second`, and `seconds_<part>` for each part."""
        return {
            "seconds": round(self.seconds, 3),
            "frames": self.frames,
            "frames_per_second": round(self.frames_per_second, 4),
            **{f"seconds_{name}": round(seconds, 3) for name, seconds in self._parts.items()},
        }
