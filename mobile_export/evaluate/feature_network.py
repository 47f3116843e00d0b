"""FeatureNetwork: what turns pictures into the features that Fréchet distances are of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class FeatureNetwork:
    """name: for tables; width: numbers a picture; features: (N, 1 or 3, H, W) in [-1, 1] -> (N, width) float32."""

    name: str
    width: int
    features: Callable[[np.ndarray], np.ndarray]

    @property
    def enough(self) -> int:
        """Pictures that a distance needs: with fewer their covariance is mostly noise."""
        return enough_for(self.width)


def enough_for(width: int) -> int:
    """Pictures that a Fréchet distance of so many features needs."""
    return 2 * width
