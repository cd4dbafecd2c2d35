"""A straight line through the past, drawn on into the future."""

from __future__ import annotations

from collections.abc import Sequence


def line(values: Sequence[float]) -> tuple[float, float]:
    """Give level and slope of the least-squares line through ``(0, values[0]), (1, values[1]), ...``."""
    n = len(values)
    middle = (n - 1) / 2
    mean = sum(values) / n
    spread = sum((i - middle) ** 2 for i in range(n))
    slope = sum((i - middle) * (value - mean) for i, value in enumerate(values)) / spread
    return mean - slope * middle, slope


def ahead(values: Sequence[float], steps: int) -> list[float]:
    """Give the next `steps` values on that line."""
    level, slope = line(values)
    return [level + slope * (len(values) + i) for i in range(steps)]
