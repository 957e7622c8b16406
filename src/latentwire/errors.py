"""The one error class for mistakes that a user can fix: its message names the value, the place and the fix."""

from __future__ import annotations


class InputError(ValueError):
    """Input that can't be used: a configuration, a data set, a model, or an earlier stage's result."""


class UnwritableError(InputError, OSError):
    """A file that can't be written: the disk is full, a folder is in its place, or its folder is another user's."""


def said(error: BaseException, most: int = 300) -> str:
    """An error's own words in one line, at most so many characters: what libraries quote may be a whole file."""
    words = " ".join(str(error)[: 10 * most].split())
    return words if len(words) <= most else f"{words[: most - 1]}…"
