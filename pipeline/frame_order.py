"""The order of all frames that a recording or its log knows, whether or not they can be used."""

from collections import Counter
from collections.abc import Mapping, Sequence

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
        self._before = {key: _place_among(listed, key) for key in unlisted}
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


def _place_among(listed: Mapping[str, int], key: str) -> int:
    """The index of the frame before which `key` belongs; one more than the last if none comes after it."""
    wanted = natural_order(key)
    later = [k for other, k in listed.items() if natural_order(other) > wanted]
    return min(later, default=max(listed.values(), default=-1) + 1)
