"""Are the rows of a spike stream upright? Its content does not tell; a picture of the same scene does.

Counts of spikes over an exposure resemble the grey frame of it: r is 0.94 to 0.99 upright and -0.6 to 0.4 upside down
in the recordings at hand.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.physics import correlation, grey_light

ALIKE = 0.5
"""A correlation that neither another scene nor the same one upside down reaches by chance."""
APART = 0.15
"""By which one of the two must be better."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FlipEvidence:
    """How a picture resembles the spikes: correlations of the grey picture with their counts.

    Attributes:
        as_read: with the rows in the order in which they were read.
        upside_down: with the rows in the other order.
    """

    as_read: float
    upside_down: float

    @property
    def margin(self) -> float:
        """By which the order as read is better; negative when the other one is."""
        return self.as_read - self.upside_down

    @property
    def verdict(self) -> bool | None:
        """True if the rows are upright as read, False if they are upside down, None if that cannot be told."""
        if max(self.as_read, self.upside_down) < ALIKE or abs(self.margin) < APART:
            return None
        return self.margin > 0


def flip_evidence(image: npt.NDArray[np.uint8], counts: npt.NDArray[np.integer]) -> FlipEvidence:
    """Compare a picture with the spikes of its exposure.

    Args:
        image: (3, H * scale, W * scale) uint8.
        counts: (H, W) spikes of each pixel.
    """
    grey = grey_light(image, image.shape[1] // counts.shape[0])
    return FlipEvidence(as_read=correlation(grey, counts), upside_down=correlation(grey[::-1], counts))
