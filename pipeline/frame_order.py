"""The order of all frames that a recording or its log knows, whether or not they can be used."""

import bisect
import itertools
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from pipeline.recordings import natural_order


class FrameOrder:
    """Where every frame stands.

    Args:
        listed: index in `Recording.listed` by the name that the log has for the frame.
        unlisted: names of frames that only the log knows; each comes before the first listed one of a higher name.

    Attributes:
        place: of every frame, by that name, from 0.
    """

    def __init__(self, listed: Mapping[str, int], unlisted: set[str]) -> None:
        place_among = _places(listed)
        self._before = {key: place_among(key) for key in unlisted}
        keys = sorted(unlisted, key=lambda key: (self._before[key], natural_order(key)))
        ranked = [((k, 1), key) for key, k in listed.items()]
        ranked += [((self._before[key], 0), key) for key in keys]
        ranked.sort(key=lambda item: item[0])
        self.place = {key: place for place, (_, key) in enumerate(ranked)}
        self._index = [k for (k, _), _ in ranked]

    def unseen(self, gaps: Sequence[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
        """(index in `Recording.listed`, how many frames that are not there come before it), by index.

        Args:
            gaps: (place, how many frames are missing before it).
        """
        counts = Counter(self._before.values())
        for place, missing in gaps:
            counts[self._index[place]] += missing
        return tuple(sorted(counts.items()))


def _places(listed: Mapping[str, int]) -> Callable[[str], int]:
    """What gives the index of the frame before which a key belongs; one more than the last if none comes after it."""
    order = sorted((natural_order(key), k) for key, k in listed.items())
    names = [name for name, _ in order]
    last = max(listed.values(), default=-1) + 1
    first_of_rest = list(itertools.accumulate((k for _, k in reversed(order)), min, initial=last))[::-1]
    return lambda key: first_of_rest[bisect.bisect_right(names, natural_order(key))]
