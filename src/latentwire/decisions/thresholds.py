"""The point rule that every decision shares."""

from __future__ import annotations

_ROUNDING = 1e-9


def reaches(f1: float, threshold: float) -> bool:
    """Whether a mean F1 is at or above a threshold, both fractions.

    A mean of fractions is rounded, so one that equals the threshold may be stored as slightly less.
    """
    return f1 >= threshold - _ROUNDING
